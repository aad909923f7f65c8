"""An exported folder: its files, its description, written whole or not at all, read strictly.

Nothing here imports torch: ONNX Runtime alone reads such a folder.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_prune.errors import DataError, ModelError
from espnet_prune.io_atomic import read_json
from espnet_prune.models.espnet.sample_rate import sample_rate_of

SCHEMA = 1
GRAPH, DECODER, DESCRIPTION = "model.onnx", "decoder.onnx", "model.json"
TOKENS, BPE, TOKENIZER = "tokens.txt", "bpe.model", "tokenizer.json"
BESIDE = ".data"  # weights of a graph too large for one protobuf file
GRAPHS = (GRAPH, DECODER)
FILES = {*GRAPHS, *(name + BESIDE for name in GRAPHS), DESCRIPTION, TOKENS, BPE, TOKENIZER}
SPEECH = "ctc_speech"  # a whole model, from samples to CTC log-probabilities
WHISPER = "whisper_speech"  # from samples to hidden states, and a decoder's step
# what ``model.json`` may say; the last two aren't whole models
KINDS = (SPEECH, WHISPER, "conformer_encoder", "transformers")
LEAST_FRAMES = 16
LONGEST_FRAMES = 16000  # a quarter of them fits ESPnet's table of 5000 positions, fixed in a graph
SUBSAMPLING = 4  # of Conv2dSubsampling: two convolutions of stride 2
SSL_RATE, SSL_LONGEST_SECONDS = 16000, 160
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


def describe(model: Any) -> dict:
    """What a program must know to feed a whole model with CTC and to read its outputs.

    Args:
        model: an ESPnetASRModel that carries its configuration.

    Raises:
        ModelError: neither a 4x ``conv2d`` front-end nor a wav2vec 2.0 or HuBERT encoder.
    """
    config: Mapping = model.espnet_prune_config
    return {
        "kind": SPEECH,
        **(_ssl_frames(model) if is_ssl(model) else _conv2d_frames(model, config)),
        "blank": int(model.blank_id),
        "end": int(model.eos),
        "token_type": config["token_type"],
    }


def is_ssl(model: Any) -> bool:
    """Whether a model's encoder is ``encoder: ssl``."""
    return type(model.encoder).__name__ == "SslEncoder"


def _ssl_frames(model: Any) -> dict[str, int]:
    return {
        "sample_rate": SSL_RATE,
        "least_samples": model.encoder.least(),
        "longest_samples": SSL_LONGEST_SECONDS * SSL_RATE,
        "samples_a_frame": math.prod(model.encoder.model.config.conv_stride),
    }


def _conv2d_frames(model: Any, config: Mapping) -> dict[str, int]:
    embed = type(getattr(model.encoder, "embed", model.encoder)).__name__
    if embed != "Conv2dSubsampling":
        raise ModelError(f"input_layer: {embed}, whose frames aren't known; expected conv2d")
    hop = model.frontend.hop_length
    return {
        "sample_rate": sample_rate_of(config),
        "least_samples": LEAST_FRAMES * hop,
        "longest_samples": LONGEST_FRAMES * hop,
        "samples_a_frame": SUBSAMPLING * hop,
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
    schema, kind = (about.get(key) if isinstance(about, dict) else None for key in KEYS)
    return schema == SCHEMA and kind in KINDS


def read_description(folder: Path, kinds: Sequence[str] = tuple(NEEDED)) -> dict:
    """The description of an exported whole model.

    Args:
        folder: the export.
        kinds: of models that the caller can run.

    Raises:
        DataError: it is missing or isn't JSON.
        ModelError: another schema, an encoder alone, or a value that is missing or of a wrong type.
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
