"""Tokens of every kind: learned of the texts, or those of a pretrained model."""

from pathlib import Path

from espnet_prune.config import check_choice
from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.data.round_trip import check_round_trip
from espnet_prune.data.tokens import DESCRIPTION, TYPES, make_tokens
from espnet_prune.errors import ConfigError
from espnet_prune.io_atomic import read_json
from espnet_prune.models.whisper.tokens import HUGGING_FACE, WhisperText, write_whisper_tokens


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

    Raises:
        ConfigError: options that don't go together; too large or small a vocabulary.
        DataError: the tokens can't write a text.
    """
    check_choice("--type", kind, (*TYPES, HUGGING_FACE))
    if (tokenizer is not None) != (kind == HUGGING_FACE):
        raise ConfigError(f"--tokenizer: it goes with --type {HUGGING_FACE}, and that needs it")
    if tokenizer is not None:
        tokens = write_whisper_tokens(tokenizer, out)
        check_texts(out, text)
        return tokens
    return make_tokens(text, out, kind, vocabulary_size)


def check_texts(folder: Path, text: Path, given: bool = False) -> None:
    """Makes sure that a folder's tokens can write every text.

    Args:
        folder: folder of the tokens.
        text: a Kaldi ``text`` file.
        given: whether the tokens are a trained model's.

    Raises:
        DataError: some come back changed; of a trained model's tokens, all.
    """
    description, rewrite = read_json(folder / DESCRIPTION), None
    if description["type"] == HUGGING_FACE:
        whisper = WhisperText(folder / description["model"], multilingual=False)

        def rewrite(sentence: str) -> str:
            # its transcripts are lower case, which scoring has to ignore (--normalise)
            same = whisper.text(whisper.ids(sentence)) == sentence.lower()
            return sentence if same else "?"

    check_round_trip(folder, read_map(text), text, rewrite, given)
