"""A pruned system as one zip file: weights, configuration, plan and record."""

import zipfile
from pathlib import Path

from espnet_prune.errors import DataError
from espnet_prune.io_atomic import atomic_path

FILES = ("model.safetensors", "model.json", "bpe.model")
RECORDS = ("system.json", "plan.json", "profile.json")


def pack_system(system: Path, out: Path) -> None:
    """Writes the zip; ``unzip`` it and give the folder to ``espnet_prune.load``.

    Args:
        system: the system's folder.
        out: the file to make.

    Raises:
        DataError: the system has no final model yet.
    """
    model = system / "model"
    if not (model / "model.json").exists():
        raise DataError(f"{model}: no model there; run stages 8 to 10 for this system first")
    wanted = [model / name for name in FILES] + [system / name for name in RECORDS]
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as z:
        for path in wanted:
            if path.exists():
                z.write(path, path.name)
