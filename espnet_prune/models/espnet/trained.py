"""A trained model as ESPnet left it: an experiment's folder, a zip of its model zoo, or on the hub.

A zip, and a model on the hub, hold ``meta.yaml``, which names the configuration and the weights; in
an experiment's folder they have the names that ESPnet's training gives. Paths inside the
configuration begin where the training ran, or where the zip begins.
"""

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_prune.errors import DataError, ModelError
from espnet_prune.models.espnet.folder import CONFIG, read_espnet_config

META = "meta.yaml"
ZIP, WEIGHTS = ".zip", ".pth"
RESUMED_FROM = "checkpoint.pth"  # of the trainer: no weights alone
ASR = "asr"
# OWSM's tasks, with a decoder and without, and what only their configurations name as preprocessor
S2T, S2T_CTC = OWSM = ("s2t", "s2t_ctc")
TASKS = (ASR, S2T)  # as ``meta.yaml`` names files: both of OWSM's alike
BY_DEFAULT = (("valid", "acc"), ("valid", "loss"), ("train", "loss"))  # criteria, best first


@dataclass(frozen=True)
class Trained:
    """The files of a trained model.

    Attributes:
        source: what the user named, for errors.
        config: what ESPnet's training wrote to config.yaml; its files of tokens are found.
        weights: the file of its weights.
    """

    source: str
    config: Mapping[str, Any]
    weights: Path

    @property
    def task(self) -> str:
        """ESPnet's task: ``asr``; of OWSM's models ``s2t``, or ``s2t_ctc`` without a decoder."""
        preprocessor = self.config.get("preprocessor")
        return preprocessor if preprocessor in OWSM else ASR


def is_trained(source: str) -> bool:
    """Whether a name may be that of a model that ESPnet left."""
    path = Path(source)
    if path.is_dir():
        return any((path / name).is_file() for name in (META, CONFIG))
    return path.suffix in (ZIP, WEIGHTS)


@contextmanager
def opened(source: str) -> Iterator[Trained]:
    """The files of a trained model, for as long as they are needed.

    Args:
        source: an experiment's folder, one of its ``.pth`` files, a zip of the model zoo, or a
            folder that was unpacked from one or had from the hub.

    Raises:
        DataError: a file is missing.
        ModelError: no such archive; a model of another task than recognition.
    """
    path = Path(source)
    if path.suffix == ZIP:
        with tempfile.TemporaryDirectory() as folder:
            _unpack(path, Path(folder))
            yield find(Path(folder), source)
    else:
        yield find(path, source)


def find(path: Path, source: str) -> Trained:
    """The files of a trained model that lie in a folder, or beside a file of weights.

    Args:
        path: the folder, or the file.
        source: what errors name.

    Raises:
        DataError: a file is missing, or several might be meant.
        ModelError: a model of another task than recognition.
    """
    if (path / META).is_file():
        config_file, weights = _by_meta(path, source)
    else:
        folder = path if path.is_dir() else path.parent
        config_file, weights = folder / CONFIG, None if path.is_dir() else path
    config = dict(read_espnet_config(config_file))
    weights = weights or best_weights(config_file.parent, config)
    if not weights.is_file():
        raise DataError(f"{source}: {weights.name}: no such file, which the weights should be in")
    for key in ("bpemodel", "token_list"):
        if isinstance(config.get(key), str):
            config[key] = str(_named(config[key], config_file, key))
    if isinstance(config.get("token_list"), str):
        text = Path(config["token_list"]).read_text(encoding="utf-8")
        config["token_list"] = [line.rstrip() for line in text.splitlines()]
    return Trained(source, config, weights)


def best_weights(folder: Path, config: Mapping[str, Any]) -> Path:
    """The weights that ESPnet itself decodes with: of the best epochs, averaged or the best one.

    Args:
        folder: the experiment's.
        config: its training's, whose first criterion counts.

    Raises:
        DataError: there are none, or several that might be meant; names them.
    """
    criteria = [tuple(each[:2]) for each in config.get("best_model_criterion") or BY_DEFAULT]
    for phase, key in criteria:
        for name in (f"{phase}.{key}.ave{WEIGHTS}", f"{phase}.{key}.best{WEIGHTS}"):
            if (folder / name).is_file():
                return folder / name
        averages = sorted(folder.glob(f"{phase}.{key}.ave_*best{WEIGHTS}"))
        if len(averages) == 1:
            return averages[0]
    found = [path for path in sorted(folder.glob(f"*{WEIGHTS}")) if path.name != RESUMED_FROM]
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found) or "none"
    raise DataError(
        f"{folder}: weights by {' or '.join('.'.join(each) for each in criteria)} were expected, "
        f"averaged or best; there are: {names}. Name the {WEIGHTS} file instead of the folder"
    )


def _by_meta(folder: Path, source: str) -> tuple[Path, Path]:
    """Configuration and weights that ``meta.yaml`` names."""
    meta = read_espnet_config(folder / META)
    files = {**(meta.get("yaml_files") or {}), **(meta.get("files") or {})}
    task = next((task for task in TASKS if f"{task}_model_file" in files), TASKS[0])
    named = [files.get(f"{task}_{kind}") for kind in ("train_config", "model_file")]
    if None in named:
        raise ModelError(
            f"{source}: {META} names {', '.join(sorted(files)) or 'no file'}; expected "
            "asr_train_config and asr_model_file, of a model for recognition (task asr), or those "
            "of s2t"
        )
    for name in named:
        if not (folder / name).is_file():
            raise DataError(f"{source}: {name}: no such file, which its {META} names")
    return folder / named[0], folder / named[1]


def _named(name: str, config_file: Path, key: str) -> Path:
    """A file that a configuration names: as it says, or below a folder that holds the experiment.

    Raises:
        DataError: it is in none of these places.
    """
    path, folder = Path(name), config_file.absolute().parent
    above = [] if path.is_absolute() else [up / path for up in (folder, *folder.parents)]
    for place in (*([path] if path.is_absolute() else []), *above, folder / path.name):
        if place.is_file():
            return place
    raise DataError(
        f"{config_file}: {key}: {name}: no such file, there or below a folder that holds this one; "
        f"copy it to {folder / path.name}"
    )


def _unpack(archive: Path, folder: Path) -> None:
    """All of a zip; it can't write anywhere else.

    Raises:
        DataError: there is no such file.
        ModelError: it is no zip, damaged, or has no ``meta.yaml``.
    """
    if not archive.is_file():
        raise DataError(f"{archive}: no such file; a {ZIP} of ESPnet's model zoo was expected")
    try:
        with zipfile.ZipFile(archive) as z:
            if META not in z.namelist():
                raise ModelError(
                    f"{archive}: it holds no {META}; a {ZIP} as ESPnet's model zoo has them was "
                    "expected, with configuration and weights named there"
                )
            z.extractall(folder)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ModelError(f"{archive}: can't be read as a {ZIP} ({error})") from error
