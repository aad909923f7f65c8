"""ESPnet models from configurations, and loaded strictly.

ESPnet's own loader takes ``strict=False``, so that renamed weights stay random without a word;
here every weight must fit.
"""

import argparse
import contextlib
import importlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
from torch import nn
from typeguard import TypeCheckError

from espnet_prune.errors import ModelError
from espnet_prune.io_torch import read_torch
from espnet_prune.models.espnet import choices  # stubs and our classes, before ESPnet
from espnet_prune.models.espnet.trained import ASR
from espnet_prune.surgery.families import find_family
from espnet_prune.surgery.serialize import load_strictly

UNBUILDABLE = (
    AssertionError,
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeCheckError,
    TypeError,
    ValueError,
)


def build_asr_model(config: Mapping) -> nn.Module:
    """An ESPnetASRModel, as ``build_model`` makes it."""
    return build_model(config, ASR)


def build_model(config: Mapping, task: str) -> nn.Module:
    """A model of ESPnet's from its configuration, weights random.

    Args:
        config: what ESPnet writes to config.yaml; ``token_list`` a list or a path. The statistics
            of global_mvn needn't exist: they are among the weights.
        task: ``asr``; for the models of OWSM ``s2t``, or ``s2t_ctc`` where they have no decoder.

    Returns:
        The model, its configuration attached as ``espnet_prune_config``.

    Raises:
        ModelError: ESPnet can't build it; says why.
    """
    builder, config = task_of(task), dict(config)
    with tempfile.TemporaryDirectory() as folder:
        values = {**espnet_defaults(task), **config}
        with naming_what_fails():
            if values.get("normalize") == "global_mvn":
                stats = Path(folder) / "stats.npz"
                size = _feature_size(values)
                numpy.savez(stats, count=1, sum=numpy.zeros(size), sum_square=numpy.ones(size))
                values["normalize_conf"] = {
                    **(values["normalize_conf"] or {}),
                    "stats_file": str(stats),
                }
            arguments = argparse.Namespace(**values)
            model = builder.build_model(arguments)
    without_error_rates(model)
    config["token_list"] = list(arguments.token_list)
    plan = config.pop("pruned_arch", None)
    model.espnet_prune_config = config
    return joined(model, plan)


def joined(model: nn.Module, plan: Mapping[str, Any] | None = None) -> nn.Module:
    """An ESPnet model that was just built, made ready as its encoder's family asks.

    Args:
        model: an ESPnetASRModel.
        plan: as JSON, where the whole model has one instead of its parts.

    Raises:
        ModelError: it is the plan of another model, or of none that has one as a whole.
    """
    family = find_family(model.encoder)
    if family is None and plan is not None:
        raise ModelError(f"pruned_arch: no plan of a {type(model.encoder).__name__} is known")
    return model if family is None else family.joined(model, plan)


def without_error_rates(model: nn.Module) -> None:
    """Spares a transducer the beam search that ESPnet makes beside each loss in evaluation."""
    if getattr(model, "use_transducer_decoder", False):
        model.error_calculator_trans = None


@contextlib.contextmanager
def naming_what_fails() -> Iterator[None]:
    """Whatever ESPnet's constructors raise at an option that they don't take is a ModelError."""
    try:
        yield
    except UNBUILDABLE as error:
        raise ModelError(f"ESPnet can't build the model of this configuration: {error}") from error


def load_trained(config_file: str | Path, model_file: str | Path) -> nn.Module:
    """A trained ESPnet model, strictly, on the CPU and in evaluation mode.

    Args:
        config_file: the config.yaml that ESPnet's training wrote.
        model_file: a ``.pth`` file of weights.

    Raises:
        ModelError: the file can't be read, or doesn't fit the configuration.
    """
    import yaml

    config = yaml.safe_load(Path(config_file).read_text(encoding="utf-8"))
    model = build_asr_model(config)
    load_strictly(model, read_torch(model_file), str(model_file))
    return model.eval()


def _feature_size(values: Mapping) -> int:
    from espnet2.tasks.asr import frontend_choices

    if values.get("input_size") is not None:
        return values["input_size"]
    return frontend_choices.get_class(values["frontend"])(**values["frontend_conf"]).output_size()


def espnet_defaults(task: str = ASR) -> dict:
    """ESPnet's default of every option of a task, as plain values."""
    arguments, _ = task_of(task).get_parser().parse_known_args([])
    return dict(vars(arguments))


def task_of(name: str) -> type:
    """ESPnet's task of this name, which knows the classes of cut models."""
    if name == ASR:
        from espnet2.tasks.asr import ASRTask

        return ASRTask
    choices.register(name)
    return importlib.import_module(f"espnet2.tasks.{name}").S2TTask
