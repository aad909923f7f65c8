"""ESPnet models from configurations, loaded strictly, and written for stock ESPnet.

ESPnet's own loader takes ``strict=False``, so that renamed weights stay random without a word;
here every weight must fit.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy
from torch import nn

from espnet_prune.config import dump_yaml
from espnet_prune.io_atomic import atomic_path, write_text
from espnet_prune.io_torch import read_torch, write_torch
from espnet_prune.models.conformer.encoder import naming_what_fails
from espnet_prune.models.espnet import registry  # noqa: F401  (stubs and the cut encoder's class)
from espnet_prune.models.model_folder import BPE, CONFIG, STATISTICS, WEIGHTS
from espnet_prune.models.whisper.espnet_parts import cut_joined, join
from espnet_prune.surgery.serialize import copy_bpe, espnet_config, load_strictly


def build_asr_model(config: Mapping) -> nn.Module:
    """An ESPnetASRModel from its configuration, weights random.

    Args:
        config: what ESPnet writes to config.yaml; ``token_list`` a list or a path. The statistics
            of global_mvn needn't exist: they are among the weights.

    Returns:
        The model, its configuration attached as ``espnet_prune_config``.

    Raises:
        ModelError: ESPnet can't build it; says why.
    """
    from espnet2.tasks.asr import ASRTask

    config = dict(config)
    with tempfile.TemporaryDirectory() as folder:
        values = {**_defaults(), **config}
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
            model = ASRTask.build_model(arguments)
    config["token_list"] = list(arguments.token_list)
    plan = config.pop("pruned_arch", None)
    model.espnet_prune_config = config
    return cut_joined(join(model), plan)


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


def write_espnet_folder(model: nn.Module, folder: str | Path) -> Path:
    """Writes ``config.yaml`` and ``model.pth`` for stock ``Speech2Text``, cut or not.

    ESPnet resolves paths against the current folder, so those inside config.yaml are absolute.

    Args:
        model: an ESPnetASRModel that carries its configuration.
        folder: made if missing.

    Returns:
        The folder.

    Raises:
        ModelError: the model doesn't carry its configuration.
        DataError: the file of its tokens is gone.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    config = {**_defaults(), **espnet_config(model)}
    if config.get("bpemodel"):
        copy_bpe(config["bpemodel"], folder / BPE)
        config["bpemodel"] = str(folder / BPE)
    if config.get("normalize") == "global_mvn":
        target = folder / STATISTICS
        _write_stats(model.normalize, target)
        config["normalize_conf"] = {**(config["normalize_conf"] or {}), "stats_file": str(target)}
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    write_torch(state, folder / WEIGHTS)
    write_text(folder / CONFIG, dump_yaml(config))
    return folder


def _write_stats(normalize: nn.Module, target: Path) -> None:
    """The statistics file that gives back this module's mean and deviation."""
    mean = normalize.mean.double().cpu().numpy()
    deviation = normalize.std.double().cpu().numpy()
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        numpy.savez(file, count=1, sum=mean, sum_square=deviation**2 + mean**2)


def _feature_size(values: Mapping) -> int:
    from espnet2.tasks.asr import frontend_choices

    if values.get("input_size") is not None:
        return values["input_size"]
    return frontend_choices.get_class(values["frontend"])(**values["frontend_conf"]).output_size()


def _defaults() -> dict:
    """ESPnet's default of every option, as plain values."""
    from espnet2.tasks.asr import ASRTask

    arguments, _ = ASRTask.get_parser().parse_known_args([])
    return dict(vars(arguments))
