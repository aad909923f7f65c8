"""Tokens of every kind: learned of the texts, or those of a pretrained model."""

from pathlib import Path

from espnet_prune.config import check_choice
from espnet_prune.data.tokens import TYPES, make_tokens
from espnet_prune.errors import ConfigError
from espnet_prune.models.whisper.tokens import HUGGING_FACE, write_whisper_tokens


def make_any_tokens(
    text: Path, out: Path, kind: str, vocabulary_size: int, tokenizer: str | None = None
) -> list[str]:
    """Writes a folder of tokens.

    Args:
        text: a Kaldi ``text`` file, of the training set.
        out: the folder.
        kind: ``bpe``, ``char``, or ``hugging_face`` for those of a pretrained Whisper.
        vocabulary_size: number of BPE tokens; the others don't need it.
        tokenizer: for ``hugging_face``, the pretrained model's name or folder.

    Returns:
        The token list.
    """
    check_choice("--type", kind, (*TYPES, HUGGING_FACE))
    if (tokenizer is not None) != (kind == HUGGING_FACE):
        raise ConfigError(f"--tokenizer: it goes with --type {HUGGING_FACE}, and that needs it")
    if tokenizer is not None:
        return write_whisper_tokens(tokenizer, out)
    return make_tokens(text, out, kind, vocabulary_size)
