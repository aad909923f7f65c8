"""A ``tokenizer.json`` of sentencepiece's pieces as the sentencepiece model that it was made from.

transformers keeps the merges of byte-pair encoding in their order, sentencepiece a score for each
piece, the best of which is merged first. So the scores are the pieces' places in that order.
"""

import base64
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from espnet_prune.data.tokens import UNKNOWN
from espnet_prune.errors import ModelError
from espnet_prune.io_atomic import read_json

FILE = "tokenizer.json"
SPACE = "▁"
PLAIN_NORMALIZERS = ("Strip", "Replace")  # of spaces, which sentencepiece does by itself


def read_pieces(path: Path, blank: int) -> tuple[dict[str, int], bytes]:
    """The pieces and a sentencepiece model of them.

    Args:
        path: a ``tokenizer.json``.
        blank: number of the token that is the blank, which is no piece.

    Returns:
        Pieces and added tokens with their numbers; the model, whose pieces are the same without the
        blank, in the same order.

    Raises:
        ModelError: it isn't of byte-pair encoding with pieces of sentencepiece, or has no
            ``<unk>``.
    """
    from sentencepiece import sentencepiece_model_pb2 as proto

    own = read_json(path)
    model, spaces = own.get("model") or {}, own.get("pre_tokenizer") or {}
    _expect(path, "model: type", model.get("type"), "BPE")
    _expect(path, "model: unk_token", model.get("unk_token"), UNKNOWN)
    _expect(path, "pre_tokenizer: type", spaces.get("type"), "Metaspace")
    _expect(path, "pre_tokenizer: replacement", spaces.get("replacement"), SPACE)
    added = {token["content"]: token for token in own.get("added_tokens") or ()}
    vocabulary = {**model["vocab"], **{name: token["id"] for name, token in added.items()}}
    made = proto.ModelProto()
    scores, kinds = _scores(model["merges"], path), made.SentencePiece
    for piece in sorted(vocabulary, key=vocabulary.__getitem__):
        kind = kinds.NORMAL
        if piece == UNKNOWN:
            kind = kinds.UNKNOWN
            made.trainer_spec.unk_id = len(made.pieces)
        elif piece in added:
            kind = kinds.CONTROL if added[piece].get("special") else kinds.USER_DEFINED
        elif model.get("byte_fallback") and _is_byte(piece):
            kind = kinds.BYTE
        if vocabulary[piece] != blank:
            score = float(scores.get(piece, -len(scores)))
            made.pieces.add(piece=piece, score=score, type=kind)
    spec = made.trainer_spec
    spec.model_type, spec.vocab_size = spec.BPE, len(made.pieces)
    spec.byte_fallback = any(piece.type == kinds.BYTE for piece in made.pieces)
    spec.bos_id = spec.eos_id = spec.pad_id = -1
    made.normalizer_spec.add_dummy_prefix = spaces.get("prepend_scheme") != "never"
    made.normalizer_spec.precompiled_charsmap = _characters(own.get("normalizer"), path)
    return vocabulary, made.SerializeToString()


def _expect(path: Path, key: str, value: object, expected: str) -> None:
    if value != expected:
        raise ModelError(
            f"{path}: {key}: {value!r} can't be imported; expected {expected!r}, as transformers "
            "makes it of a sentencepiece model"
        )


def _scores(merges: Iterable[Any], path: Path) -> dict[str, int]:
    """Each merged piece with its score; a merge is a pair, or two pieces with a space between."""
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in merges)
    order = [piece for piece, _ in itertools.groupby("".join(pair) for pair in pairs)]
    if len(set(order)) != len(order):
        twice = next(piece for i, piece in enumerate(order) if piece in order[:i])
        raise ModelError(
            f"{path}: model: merges: those that make {twice!r} aren't next to each other, so they "
            "can't be sentencepiece's; expected a tokenizer made of a sentencepiece model"
        )
    return {piece: -place for place, piece in enumerate(order)}


def _is_byte(piece: str) -> bool:
    return len(piece) == len("<0x00>") and piece.startswith("<0x") and piece.endswith(">")


def _characters(normalizer: Mapping[str, Any] | None, path: Path) -> bytes:
    """sentencepiece's own table of characters to replace; empty for none."""
    found = b""
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    for step in steps:
        if step.get("type") == "Precompiled":
            found = base64.b64decode(step.get("precompiled_charsmap") or "")
        elif step.get("type") not in PLAIN_NORMALIZERS:
            _expect(path, "normalizer: type", step.get("type"), "Precompiled")
    return found
