"""An exported folder: its files, its description, written whole or not at all, read strictly.

Nothing here imports torch: ONNX Runtime alone reads such a folder.
"""

from collections.abc import Sequence
from pathlib import Path

from espnet_prune.errors import DataError, ModelError
from espnet_prune.io_atomic import read_json
from espnet_prune.models.graph_names import DECODER, GRAPH, SPEECH, WHISPER

SCHEMA = 1
DESCRIPTION = "model.json"
TOKENS, BPE, TOKENIZER = "tokens.txt", "bpe.model", "tokenizer.json"
BESIDE = ".data"  # weights of a graph too large for one protobuf file
GRAPHS = (GRAPH, DECODER)
FILES = {*GRAPHS, *(name + BESIDE for name in GRAPHS), DESCRIPTION, TOKENS, BPE, TOKENIZER}


KEYS = ("schema", "kind")
SAMPLES = {"sample_rate": int, "least_samples": int, "longest_samples": int}
NEEDED = {
    SPEECH: {
        **SAMPLES,
        "samples_a_frame": int,
        "blank": int,
        "end": int,
        "token_type": str,
    },
    WHISPER: {
        **SAMPLES,
        "prefix": list,
        "end": int,
        "suppressed": list,
        "suppressed_first": list,
        "most_tokens": int,
        "least_tokens": int,
        "tokens_per_second": int,
    },
}


def others_than_export(folder: Path) -> list[str]:
    """Names of what is in a folder and isn't an earlier export's, sorted."""
    names = sorted(path.name for path in folder.glob("*"))
    return [name for name in names if name not in FILES] or ([] if _is_export(folder) else names)


def _is_export(folder: Path) -> bool:
    try:
        about = read_json(folder / DESCRIPTION)
    except DataError:
        return False
    return isinstance(about, dict) and about.get("schema") == SCHEMA and "max_difference" in about


def read_description(folder: Path, kinds: Sequence[str] = tuple(NEEDED)) -> dict:
    """The description of an exported whole model.

    Args:
        folder: the export.
        kinds: kinds of models that the caller can run.

    Raises:
        DataError: it is missing or isn't JSON.
        ModelError: another schema, an encoder alone, or a value that is missing, of a wrong type or
            no number of samples.
    """
    path = folder / DESCRIPTION
    about = read_json(path)
    schema, kind = (about.get(key) if isinstance(about, dict) else None for key in KEYS)
    if schema != SCHEMA or kind not in kinds:
        raise ModelError(
            f"{path}: schema {schema!r} and kind {kind!r}, expected {SCHEMA} and "
            f"{' or '.join(kinds)}; export a whole model of a recipe"
        )
    for key, expected in NEEDED[kind].items():
        if not isinstance(about.get(key), expected):
            raise ModelError(
                f"{path}: {key} is {about.get(key)!r}, expected {expected.__name__}; "
                "export the model again"
            )
        if key in SAMPLES and about[key] < 1:
            raise ModelError(
                f"{path}: {key} is {about[key]}, expected at least 1; export the model again"
            )
    return about


def read_tokens(folder: Path) -> list[str]:
    """The tokens by index.

    Raises:
        ModelError: the file is missing or isn't UTF-8.
    """
    path = folder / TOKENS
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: can't be read ({error}); export the model again") from error
    return text.removesuffix("\n").split("\n")  # splitlines would break at U+2028 too
