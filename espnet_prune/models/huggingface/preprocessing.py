"""What a folder of ``save_pretrained`` says of its feature extractor."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_prune.errors import DataError, ModelError
from espnet_prune.io_atomic import read_json

# by itself, or among others under that key
FILE, TOGETHER, KEY = "preprocessor_config.json", "processor_config.json", "feature_extractor"
KIND = "feature_extractor_type"


@dataclass(frozen=True)
class Preprocessing:
    """The settings of a feature extractor.

    Attributes:
        path: their file, for errors.
        values: by key; empty where there is no such file.
    """

    path: Path
    values: Mapping[str, Any]

    def expect(self, known: Mapping[str, Any]) -> None:
        """Makes sure that settings, where they are there, have the only values that are known.

        Raises:
            ModelError: one has another; names it.
        """
        for key, expected in known.items():
            value = self.values.get(key, expected)
            if value != expected:
                raise ModelError(
                    f"{self.path}: {key}: {value} can't be imported; expected {expected}"
                )

    def number(self, key: str, default: float) -> Any:
        """A setting that is a number; 0 for null.

        Raises:
            ModelError: it is none.
        """
        value = self.values.get(key, default) or 0
        if isinstance(value, bool) or not isinstance(value, type(default) | int):
            kind = "whole number" if isinstance(default, int) else "number"
            raise ModelError(f"{self.path}: {key}: {value!r}; expected a {kind}")
        return value


def read_preprocessing(folder: Path, needed: bool) -> Preprocessing:
    """The settings of a folder.

    Args:
        folder: of ``save_pretrained``.
        needed: whether it must have them.

    Raises:
        DataError: they are needed and missing, or no mapping.
    """
    path = folder / TOGETHER
    own = read_mapping(path).get(KEY) if path.is_file() else None
    if own is None:
        path = folder / FILE
        own = read_mapping(path) if path.is_file() else {}
    _check_mapping(own, path)
    if needed and not own:
        raise DataError(
            f"{path}: no such file, which says how samples become features; copy it there from "
            f"where the model was made, it or {TOGETHER}"
        )
    return Preprocessing(path, own)


def read_mapping(path: Path) -> dict:
    """What a file of JSON says by key.

    Raises:
        DataError: it is missing, or no mapping.
    """
    return _check_mapping(read_json(path), path)


def _check_mapping(found: object, path: Path) -> dict:
    if not isinstance(found, dict):
        raise DataError(
            f"{path}: a mapping of keys was expected, not a {type(found).__name__}; copy the file "
            "of the folder's origin"
        )
    return found
