"""What tells a pretrained model in a folder from another one that took its place."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_prune.io_atomic import read_json
from espnet_prune.provenance import file_digest
from espnet_prune.stage import MARK

TOKENIZER_FILES = ("config.json", "tokenizer.json")
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.bin")


def contents_digest(folder: Path, patterns: Sequence[str]) -> str:
    """12 hex digits of the contents of a folder's files of these names."""
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    parts = [f"{path.name} {file_digest(path)}" for path in found]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def with_contents(
    made_by: Mapping[str, Any], name: object, patterns: Sequence[str], out: Path
) -> dict[str, Any]:
    """A stage's record with the contents of the pretrained model that it starts from.

    A stage that finds another model under the same name is then refused, by that name.

    Args:
        made_by: the record.
        name: of the model; of a name on the hub, or none at all, nothing is added.
        patterns: of the files that the stage reads.
        out: the stage's folder; one that was finished before contents were recorded is taken as it
            is.
    """
    record = dict(made_by)
    if not isinstance(name, str) or not Path(name).is_dir():
        return record
    key = f"contents of {name}"
    mark = out / MARK
    if mark.exists() and key not in read_json(mark)["config"]:
        return record
    return {**record, key: contents_digest(Path(name), patterns)}
