"""A pruned system as one zip file: ours, and one that ESPnet unpacks and loads by itself."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from espnet_prune.config import dump_yaml
from espnet_prune.errors import DataError, ModelError
from espnet_prune.io_atomic import atomic_path
from espnet_prune.models.espnet.folder import (
    BPE,
    CONFIG,
    ESPNET_FOLDER,
    STATISTICS,
    WEIGHTS,
    read_espnet_config,
)
from espnet_prune.out_path import check_out_file

FILES = ("model.safetensors", "model.json", "bpe.model")
RECORDS = ("system.json", "plan.json", "profile.json")
META = {"yaml_files": {"asr_train_config": CONFIG}, "files": {"asr_model_file": WEIGHTS}}


def pack_system(system: Path, out: Path) -> None:
    """Writes the zip; ``unzip`` it and give the folder to ``espnet_prune.load``.

    Args:
        system: the system's folder.
        out: the file to make.

    Raises:
        ConfigError: ``out`` is a folder.
        DataError: the system has no final model yet.
    """
    model = _model_of(system)
    wanted = [model / name for name in FILES] + [system / name for name in RECORDS]
    with _new_zip(out) as z:
        for path in wanted:
            if path.exists():
                z.write(path, path.name)


def pack_for_espnet(system: Path, out: Path) -> None:
    """Writes a zip for ``Speech2Text.from_pretrained``, after our one import.

    ESPnet's ``unpack`` reads ``meta.yaml`` for the roles of the files, and puts the places where it
    unpacked them into the configuration wherever that names one of them.

    Args:
        system: the system's folder.
        out: the file to make.

    Raises:
        ConfigError: ``out`` is a folder.
        DataError: the system has no final model yet, or its configuration is damaged.
        ModelError: a Whisper, which is no model of stock ESPnet.
    """
    folder = _model_of(system) / ESPNET_FOLDER
    if not is_for_espnet(system):
        raise ModelError(
            f"{folder}: no model for stock ESPnet there, which knows no Whisper; make a folder of "
            "it by `espnet-prune hub_folder`"
        )
    config = read_espnet_config(folder / CONFIG)
    if config.get("bpemodel"):
        config["bpemodel"] = BPE
    if (config.get("normalize_conf") or {}).get("stats_file"):
        config["normalize_conf"]["stats_file"] = STATISTICS
    texts = {"meta.yaml": META, CONFIG: config}
    with _new_zip(out) as z:
        for name, value in texts.items():
            z.writestr(name, dump_yaml(value))
        others = [folder / name for name in (WEIGHTS, BPE, STATISTICS)]
        for path in [*others, *(system / name for name in RECORDS)]:
            if path.exists():
                z.write(path, path.name)


@contextlib.contextmanager
def _new_zip(out: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file that appears whole or not at all."""
    check_out_file(out)
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as z:
        yield z


def is_for_espnet(system: Path) -> bool:
    """Whether stock ESPnet can have a system's model: any but a Whisper."""
    return (system / "model" / ESPNET_FOLDER / CONFIG).exists()


def _model_of(system: Path) -> Path:
    model = system / "model"
    if not (model / "model.json").exists():
        raise DataError(f"{model}: no model there; run stages 8 to 10 for this system first")
    return model
