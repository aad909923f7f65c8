"""YAML configuration: read strictly, inherited by ``base:``, turned into frozen dataclasses.

An unknown key, a key given twice or a value of the wrong type is an error that names the key
and the nearest one that exists, so that no setting is ever silently ignored.
"""

import copy
import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from espnet_prune.errors import ConfigError

T = TypeVar("T")
BASE_KEY = "base"
MERGE = "tag:yaml.org,2002:merge"


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice."""


def _construct_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict:
    seen: set = set()
    for key_node, _ in node.value:
        if key_node.tag == MERGE:  # `<<: *anchor`, whose keys may be given again
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            break  # the safe loader says so
        if key in seen:
            raise ConfigError(
                f"{key_node.start_mark.name}:{key_node.start_mark.line + 1}: key '{key}' is "
                "given twice; keep one of them"
            )
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def merge(base: Mapping, override: Mapping) -> dict:
    """Deep-merges two mappings; ``override`` wins, and mappings are merged key by key.

    Where it names another ``scheduler``, say, the ``scheduler_conf`` below is of no use and goes.
    """
    merged = copy.deepcopy(dict(base))
    for key in set(merged) & {f"{key}_conf" for key in override}:
        name = key.removesuffix("_conf")
        if override[name] != merged.get(name):
            del merged[key]
    for key, value in override.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def load_yaml(path: str | Path, _chain: tuple[Path, ...] = ()) -> dict:
    """Reads a YAML mapping; ``base: FILE`` (relative to this file) is merged below it.

    Raises:
        ConfigError: the file can't be read, isn't YAML in UTF-8 or no mapping, or its bases form
            a ring.
    """
    path = Path(path).resolve()
    if path in _chain:
        raise ConfigError(f"{path}: its `base:` files lead back to itself")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file") from error
    except OSError as error:
        raise ConfigError(
            f"{path}: it can't be read ({error.strerror}); a YAML file was expected"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error}); convert it") from error
    try:
        content = _parse(text, str(path))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a mapping of keys was expected, not {type(content).__name__}")
    base = content.pop(BASE_KEY, None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"{path}: {BASE_KEY}: the path of one YAML file was expected, not {base}")
    return merge(load_yaml(path.parent / base, (*_chain, path)), content)


def _parse(text: str, name: str) -> Any:
    loader = _StrictLoader(text)
    loader.name = name
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def nearest(name: str, choices: Iterable[str]) -> str:
    """``' (did you mean 'x'?)'``, or an empty string where nothing is near."""
    found = difflib.get_close_matches(str(name), list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{found[0]}'?)" if found else ""


def check_choice(where: str, value: str, choices: Iterable[str]) -> str:
    """Returns ``value`` if it is among ``choices``; a ConfigError names the nearest otherwise."""
    choices = list(choices)
    if value not in choices:
        raise ConfigError(
            f"{where}: '{value}' is not known{nearest(value, choices)}; choose one of {choices}"
        )
    return value


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else to_dataclass(kind, value, where)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: a list was expected, not {value!r}")
        return origin(_convert(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: a mapping was expected, not {value!r}")
        return {key: _convert(arguments[1], v, f"{where}.{key}") for key, v in value.items()}
    if kind in (Any, object):
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{where}: {kind.__name__} was expected, not {value!r}")
    return value


def to_dataclass(cls: type[T], mapping: Mapping, where: str) -> T:
    """Turns a mapping into a dataclass, nested ones included.

    Args:
        cls: the dataclass; its type hints are what is checked.
        mapping: the values, as read from YAML.
        where: the file or key that errors name.

    Raises:
        ConfigError: no mapping, an unknown or missing key, or a value of the wrong type.
    """
    check_mapping(where, mapping)
    hints = typing.get_type_hints(cls)
    known = {field.name: field for field in dataclasses.fields(cls)}
    for key in mapping:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key '{key}'{nearest(key, known)}; known keys: {sorted(known)}"
            )
    for name, field in known.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in mapping:
            raise ConfigError(f"{where}: the key '{name}' is missing")
    values = {k: _convert(hints[k], v, f"{where}: {k}") for k, v in mapping.items()}
    return cls(**values)


def check_mapping(where: str, value: object) -> Mapping:
    """Returns ``value`` if it is a mapping; a ConfigError otherwise."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: a mapping of keys was expected, not {value!r}")
    return value


def check_range(where: str, value: float, low: float, high: float) -> None:
    """ConfigError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ConfigError(f"{where}: {value} is out of range; expected {low} to {high}")


def config_hash(mapping: Mapping) -> str:
    """A short hash of a configuration, independent of the order of its keys."""
    text = json.dumps(mapping, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def dump_yaml(mapping: Mapping) -> str:
    """The YAML text of a resolved configuration."""
    return yaml.safe_dump(dict(mapping), sort_keys=False, allow_unicode=True)
