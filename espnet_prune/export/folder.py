"""An exported folder: its files, its description, written whole or not at all, read strictly.

Nothing here imports torch: ONNX Runtime alone reads such a folder.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet_prune.errors import ConfigError, EnvironmentProblem, ModelError
from espnet_prune.io_atomic import read_json

SCHEMA = 1
GRAPH, DESCRIPTION, TOKENS, BPE = "model.onnx", "model.json", "tokens.txt", "bpe.model"
DATA = GRAPH + ".data"  # weights of a graph too large for one protobuf file
FILES = {GRAPH, DATA, DESCRIPTION, TOKENS, BPE}
SPEECH = "ctc_speech"  # a whole model, from samples to CTC log-probabilities
LEAST_FRAMES = 16
LONGEST_FRAMES = 16000  # a quarter of them fits ESPnet's table of 5000 positions, fixed in a graph
SUBSAMPLING = 4  # of Conv2dSubsampling: two convolutions of stride 2
KEYS = ("schema", "kind")
NEEDED = {
    "sample_rate": int,
    "least_samples": int,
    "longest_samples": int,
    "samples_a_frame": int,
    "blank": int,
    "end": int,
    "token_type": str,
}


def describe(model: Any) -> dict:
    """What a program must know to feed a whole model and to read its outputs.

    Args:
        model: an ESPnetASRModel that carries its configuration.

    Raises:
        ModelError: another subsampling than 4x ``conv2d``.
    """
    import humanfriendly

    embed = type(getattr(model.encoder, "embed", model.encoder)).__name__
    if embed != "Conv2dSubsampling":
        raise ModelError(f"input_layer: {embed}, whose frames aren't known; expected conv2d")
    config: Mapping = model.espnet_prune_config
    rate = (config.get("frontend_conf") or {}).get("fs", 16000)
    hop = model.frontend.hop_length
    return {
        "kind": SPEECH,
        "sample_rate": humanfriendly.parse_size(rate) if isinstance(rate, str) else int(rate),
        "least_samples": LEAST_FRAMES * hop,
        "longest_samples": LONGEST_FRAMES * hop,
        "samples_a_frame": SUBSAMPLING * hop,
        "blank": int(model.blank_id),
        "end": int(model.eos),
        "token_type": config["token_type"],
    }


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``folder`` that takes its place on success.

    Raises:
        ConfigError: ``folder`` is a file, or holds anything but an earlier export.
        EnvironmentProblem: the disk is full.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file; an export makes a folder, choose another name")
    others = {path.name for path in folder.glob("*")} - FILES
    if others:
        raise ConfigError(
            f"{folder}: holds other files ({sorted(others)[0]}), which an export would remove; "
            "choose another folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        if folder.exists():
            (folder / DESCRIPTION).unlink(missing_ok=True)  # so that no half of it is ever read
            shutil.rmtree(folder)
        temporary.replace(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentProblem(
                f"{folder}: no space left on the disk; nothing was changed. Free some space and "
                "give the same command again."
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_description(folder: Path) -> dict:
    """The description of an exported whole model.

    Raises:
        DataError: it is missing or isn't JSON.
        ModelError: another schema, an encoder alone, or a value that is missing or of a wrong type.
    """
    path = folder / DESCRIPTION
    about = read_json(path)
    schema, kind = (about.get(key) if isinstance(about, dict) else None for key in KEYS)
    if schema != SCHEMA or kind != SPEECH:
        raise ModelError(
            f"{path}: schema {schema!r} and kind {kind!r}, expected {SCHEMA} and {SPEECH!r}; "
            "export a whole model with CTC"
        )
    for key, expected in NEEDED.items():
        if not isinstance(about.get(key), expected):
            raise ModelError(
                f"{path}: {key} is {about.get(key)!r}, expected {expected.__name__}; "
                "export the model again"
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
