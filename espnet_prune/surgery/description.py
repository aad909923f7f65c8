"""``model.json`` of a saved model: its schema, its kind, and values whose types are checked.

Nothing of the values' meaning is checked here; whoever builds the model says what it can't use.
"""

from collections.abc import Callable
from pathlib import Path

from espnet_prune.errors import DataError, ModelError
from espnet_prune.io_atomic import read_json

SCHEMA = 1
DESCRIPTION = "model.json"

# who builds a saved model, by its kind; imported only when one is loaded
BUILDERS = {
    "espnet_asr": "espnet_prune.models.espnet.build:build_asr_model",
    "conformer_encoder": "espnet_prune.models.conformer.encoder:build_encoder",
    "transformers": "espnet_prune.models.huggingface.build:build_model",
}


def _is_options(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("bpemodel"), str | None)


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _is_name(value: object) -> bool:
    return isinstance(value, str)


def _mapping_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


# what must stand there, and in words; keys of OPTIONAL may be missing
CHECKS = {
    "config": (_is_options, "a mapping of options, bpemodel a name where it is given"),
    "sparse": (_mapping_of(_is_shape), "shapes by name of a weight"),
    "tied": (_mapping_of(_is_name), "names of weights by name of a weight"),
}
OPTIONAL = {"sparse": {}, "tied": {}}


def read_description(folder: Path) -> dict:
    """The description of a saved model, optional keys included.

    Raises:
        DataError: it is missing, or isn't JSON.
        ModelError: another schema or kind, a key that is missing, or a value of another type.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: a file; expected the folder of a saved model")
    path = folder / DESCRIPTION
    found = read_json(path)
    if not isinstance(found, dict):
        raise ModelError(f"{path}: a mapping of keys was expected; save the model again")
    if found.get("schema") != SCHEMA:
        raise ModelError(
            f"{path}: schema {found.get('schema')!r}, expected {SCHEMA}; was it saved by another "
            "version?"
        )
    kind = found.get("kind")
    if kind not in list(BUILDERS):  # a list can be asked for what isn't hashable
        raise ModelError(f"{path}: kind {kind!r}, expected one of {list(BUILDERS)}")
    description = {**OPTIONAL, **found}
    for key, (fits, expected) in CHECKS.items():
        if not fits(description.get(key)):
            raise ModelError(f"{path}: {key}: expected {expected}; save the model again")
    return description
