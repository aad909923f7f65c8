"""A model's folder as the stages write it: ours, and inside it the one for stock ESPnet.

``espnet_prune.save`` writes ``model.json``, ``model.safetensors`` and the file of tokens;
``espnet/`` holds what stock ``Speech2Text`` loads. Whoever saves another model there replaces what
that was made from.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
import yaml
from torch import Tensor, nn

from espnet_prune.config import dump_yaml
from espnet_prune.errors import DataError, ModelError
from espnet_prune.io_atomic import atomic_path, read_json, write_text
from espnet_prune.io_torch import read_torch, write_torch
from espnet_prune.models import family_called
from espnet_prune.models.family import ModelFamily
from espnet_prune.models.graph_names import TRAINED_SECONDS
from espnet_prune.surgery.families import find_family
from espnet_prune.surgery.serialize import BPE, DESCRIPTION, copy_bpe, save
from espnet_prune.surgery.serialize import WEIGHTS as OWN_WEIGHTS

ESPNET_FOLDER, CONFIG, WEIGHTS = "espnet", "config.yaml", "model.pth"  # for stock ESPnet
STATISTICS = "feats_stats.npz"  # beside them
# libyaml's reads a list of 5000 tokens in 0.06 s, Python's in 0.5 s
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def own_family(folder: Path) -> ModelFamily | None:
    """The family of a saved model that stock ESPnet can't decode with; None for all others.

    Raises:
        DataError: its description is damaged.
    """
    family = family_called(_saved_config(folder).get("encoder"))
    return None if family is None or family.is_stock else family


def trained_seconds(folder: Path) -> float | None:
    """Seconds of the longest utterance that a saved model was trained on, where it says so.

    Raises:
        DataError: its description is damaged.
    """
    seconds = _saved_config(folder).get(TRAINED_SECONDS)
    return float(seconds) if isinstance(seconds, (int, float)) else None


def _saved_config(folder: Path) -> Mapping[str, Any]:
    """The configuration in a saved model's description; empty where there is none."""
    path = folder / DESCRIPTION
    description = read_json(path) if path.exists() else None
    config = description.get("config") if isinstance(description, dict) else None
    return config if isinstance(config, dict) else {}


def model_files(model: Path) -> tuple[Path, Path]:
    """Configuration and weights of a model, as ESPnet reads them, or as we do where it can't.

    Raises:
        DataError: its description is damaged.
        ModelError: a file is missing.
    """
    if own_family(model) is not None:
        return model / DESCRIPTION, model / OWN_WEIGHTS
    files = model / ESPNET_FOLDER / CONFIG, model / ESPNET_FOLDER / WEIGHTS
    for path in files:
        if not path.exists():
            raise ModelError(f"{path}: no such file; run the stages that make this model")
    return files


def read_espnet_config(path: Path) -> dict[str, Any]:
    """A configuration that ESPnet, or we for it, wrote.

    Raises:
        DataError: it is missing, no YAML, or no mapping.
    """
    again = "make the model's folder again, or copy it again from where it is whole"
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{path}: can't be read as YAML ({problem}); {again}") from error
    if not isinstance(config, dict) or not config:
        raise DataError(f"{path}: a mapping of keys was expected, not {config!r}; {again}")
    return config


def names_other_places(model: Path) -> bool:
    """Whether ESPnet's configuration names files elsewhere, as after a move or in a copy.

    Raises:
        DataError: the configuration is damaged.
    """
    folder = (model / ESPNET_FOLDER).resolve()
    config = read_espnet_config(folder / CONFIG)
    named = config.get("bpemodel"), (config.get("normalize_conf") or {}).get("stats_file")
    return any(Path(path).resolve().parent != folder for path in named if path)


def write_model(model: nn.Module, folder: Path) -> None:
    """Saves an ESPnetASRModel strictly in our format and, inside, for stock ESPnet if it can."""
    family = find_family(model.encoder)
    if family is None or family.is_stock:
        write_espnet_folder(model, folder / ESPNET_FOLDER)
    save(model, folder)


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
    from espnet_prune.models.espnet.build import espnet_defaults
    from espnet_prune.models.espnet.format import espnet_config, task_trained

    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    config = {**espnet_defaults(task_trained(model)), **espnet_config(model)}
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


def remove_outdated(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Removes the files for stock ESPnet of a saved model unless they hold these weights.

    Args:
        folder: the saved model's.
        state: the weights on the CPU, by name, that are about to be saved there.
    """
    stock = folder / ESPNET_FOLDER
    if not (stock / WEIGHTS).is_file() or _holds(stock / WEIGHTS, state):
        return
    for name in (CONFIG, BPE, STATISTICS, WEIGHTS):  # what is looked for first goes last
        (stock / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other files, which are the user's, stay
        stock.rmdir()


def _holds(path: Path, state: Mapping[str, Tensor]) -> bool:
    try:
        found = read_torch(path)
    except ModelError:
        return False
    if not isinstance(found, Mapping) or found.keys() != state.keys():
        return False
    return all(_same(found[name], value) for name, value in state.items())


def _same(one: object, other: Tensor) -> bool:
    return isinstance(one, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
