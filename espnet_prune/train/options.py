"""Strict reading of an ESPnet training configuration, before ESPnet sees it.

ESPnet reports an unknown key deep inside a constructor, or with a page of usage, and reads ``1e-3``
as a string; here the key is named, with the nearest one that exists.
"""

import argparse
import inspect
import re
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from espnet_prune.config import nearest
from espnet_prune.errors import ConfigError

# what YAML may give where a class annotates a parameter so
YAML_KINDS = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
    dict: (Mapping,),
    list: (list,),
    tuple: (list,),
    Sequence: (list,),
    type(None): (type(None),),
}
# what a recipe can't set because the stages do, and how it is chosen instead
SET_BY_STAGES = {
    "resume": "every training goes on from its checkpoint",
    "multiprocessing_distributed": "--ngpu and --nodes start the processes",
    "num_att_plot": "attention, which is in half precision with use_amp, isn't plotted",
    "ngpu": "--ngpu says it",
    "output_dir": "--tag names the experiment",
    "collect_stats": "stage 5 does that",
    "token_type": "--token_type says it",
    "token_list": "stage 4 makes it",
    "bpemodel": "stage 4 makes it",
}
FLOAT = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+$")


def read_floats(value: Any) -> Any:
    """Turns strings such as ``1e-3`` into numbers, however deep they are."""
    if isinstance(value, Mapping):
        return {key: read_floats(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [read_floats(inner) for inner in value]
    return float(value) if isinstance(value, str) and FLOAT.match(value) else value


def check_training_config(task: type, config: Mapping, where: str) -> dict:
    """Checks all keys and values of a training configuration.

    Args:
        task: the ESPnet task that will read it.
        config: its mapping.
        where: the file that errors name.

    Returns:
        The configuration, numbers in exponent form read.

    Raises:
        ConfigError: names the key, the value, what was expected and the nearest key.
    """
    config = read_floats(dict(config))
    actions = {action.dest: action for action in task.get_parser()._actions}
    for key, value in config.items():
        if key not in actions:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, actions)}")
        check_unset({key}, SET_BY_STAGES, where)
        _check_value(actions[key], value, f"{where}: {key}")
    for name, choices in _class_choices(task):
        chosen = config.get(name, actions[name].default if name in actions else None)
        conf = config.get(f"{name}_conf")
        if not conf or chosen is None:
            continue
        if chosen not in choices:
            raise ConfigError(f"{where}: {name}: '{chosen}' is not known{nearest(chosen, choices)}")
        _check_class(choices[chosen], conf, f"{where}: {name}_conf")
    return config


def check_unset(keys: Collection[str], elsewhere: Mapping[str, str], where: str) -> None:
    """ConfigError for a key that nothing would read here; ``elsewhere`` says how it is chosen."""
    for key in sorted(keys & elsewhere.keys()):
        raise ConfigError(f"{where}: {key}: it isn't read here, {elsewhere[key]}; leave it out")


def _check_value(action: argparse.Action, value: Any, where: str) -> None:
    if value is None:
        return
    expected = {int: (int,), float: (int, float), str: (str,)}.get(action.type)
    if expected:
        several = isinstance(value, list) and (action.nargs is not None or _appends(action))
        for single in value if several else [value]:
            if isinstance(single, bool) or not isinstance(single, expected):
                name = action.type.__name__
                raise ConfigError(f"{where}: {name} was expected, not {single!r}")
    if getattr(action.type, "__name__", "") == "str2bool" and not isinstance(value, bool):
        raise ConfigError(f"{where}: true or false was expected, not {value!r}")
    if action.dest.endswith("_conf") and not isinstance(value, Mapping):
        raise ConfigError(f"{where}: a mapping of keys was expected, not {value!r}")
    if action.choices and value not in action.choices:
        choices = [c for c in action.choices if c is not None]
        raise ConfigError(f"{where}: '{value}' is not known{nearest(value, choices)}")


def _appends(action: argparse.Action) -> bool:
    """Whether the option may be given several times."""
    return isinstance(action, argparse._AppendAction)


def _class_choices(task: type) -> Iterator[tuple[str, Mapping[str, type]]]:
    from espnet2.tasks.abs_task import optim_classes, scheduler_classes

    for choices in task.class_choices_list:
        yield choices.name, choices.classes
    yield "optim", optim_classes
    yield "scheduler", scheduler_classes


def _check_class(kind: type, conf: Mapping, where: str) -> None:
    parameters = inspect.signature(kind.__init__).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for key, value in conf.items():
        if key not in parameters:
            known = [name for name in parameters if name != "self"]
            raise ConfigError(
                f"{where}: {kind.__name__} has no option '{key}'{nearest(key, known)}"
            )
        _check_annotated(parameters[key], value, f"{where}: {key}")


def _check_annotated(parameter: inspect.Parameter, value: Any, where: str) -> None:
    """Compares a value with its parameter's annotation, where that says what YAML can give."""
    names, accepted = [], []
    for kind in _members(parameter.annotation):
        kind = get_origin(kind) or kind
        if getattr(kind, "__name__", "") == "Tensor":  # as in Adam's ``lr: float | Tensor``
            continue
        if kind not in YAML_KINDS:
            return
        names.append("null" if kind is type(None) else kind.__name__)
        accepted.extend(YAML_KINDS[kind])
    if not names or value is None and parameter.default is None:
        return
    is_bool = isinstance(value, bool)  # which Python counts among the integers
    if is_bool and bool not in accepted or not isinstance(value, tuple(accepted)):
        raise ConfigError(f"{where}: {' or '.join(names)} was expected, not {value!r}")


def _members(annotation: Any) -> Sequence[Any]:
    """The alternatives of a union; another annotation is its only one."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if is_union else (annotation,)
