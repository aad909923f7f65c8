"""Whether tokens can write the training's texts: each is encoded and decoded again.

What comes back is what a recogniser without a single error would write, and it is scored against
the text itself. So whatever the tokens change counts as errors that no training can mend.
"""

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from espnet_prune.errors import DataError
from espnet_prune.io_atomic import read_json

logger = logging.getLogger(__name__)
SHOWN = 3
SHOWN_CHARACTERS = 8
Rewrite = Callable[[str], str]


def check_round_trip(
    folder: Path,
    texts: Mapping[str, str],
    origin: Path,
    rewrite: Rewrite | None = None,
    given: bool = False,
) -> None:
    """Makes sure that every text comes back from the tokens word by word.

    Args:
        folder: folder of the tokens.
        texts: by utterance.
        origin: the file of the texts.
        rewrite: what a text becomes by the tokens and back; by default by the folder's own kind.
        given: whether the tokens are a trained model's, which nobody can change: a text that they
            can't write is warned of then, unless they can't write any.

    Raises:
        DataError: some come back changed; names utterances, texts and characters.
    """
    rewrite = rewrite or _rewrite(folder)
    changed: dict[str, str] = {}
    utterances: dict[str, str] = {}
    for utterance, text in texts.items():
        if text in utterances:
            continue
        utterances[text] = utterance
        back = rewrite(text)
        if back.split() != text.split():
            changed[text] = " ".join(back.split())
    if changed:
        samples = list(changed.items())[:SHOWN]
        shown = "; ".join(f"'{utterances[t]}': {t[:60]!r} as {b[:60]!r}" for t, b in samples)
        said = (
            f"{origin}: the tokens of {folder} can't write {len(changed)} of {len(utterances)} "
            f"different texts: {shown}{_culprits(changed)}. {_remedy(changed, rewrite)}"
        )
        if not given or len(changed) == len(utterances):
            raise DataError(said)
        logger.warning("%s", said)
    _warn_of_double_spellings(utterances, origin)


def _rewrite(folder: Path) -> Rewrite:
    """What a text becomes by the folder's tokens and back, special tokens left out."""
    description = read_json(folder / "tokens.json")
    tokens, encode = _as_espnet_reads(folder / "tokens.txt"), encoder_of(folder)
    if description["type"] == "char":
        return lambda text: _join_characters(_known(encode(text), tokens))
    if description["type"] == "word":
        return lambda text: " ".join(_known(encode(text), tokens))
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / description["model"]))
    return lambda text: processor.decode_pieces(list(_known(encode(text), tokens)))


def encoder_of(folder: Path) -> Callable[[str], list[str]]:
    """What makes tokens of a text, by pieces, characters or words.

    Args:
        folder: folder of the tokens.
    """
    description = read_json(folder / "tokens.json")
    if description["type"] == "char":
        return lambda text: [_character(character) for character in text]
    if description["type"] == "word":  # of a model that ESPnet trained
        return str.split
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / description["model"]))
    return lambda text: processor.encode(text, out_type=str)


def _as_espnet_reads(path: Path) -> set[str]:
    with path.open(encoding="utf-8") as file:
        return {line[0] + line[1:].rstrip() for line in file}


def _known(pieces: Iterable[str], tokens: Collection[str]) -> Iterable[str]:
    return (piece for piece in pieces if piece in tokens)


def _character(character: str) -> str:
    return "<space>" if character == " " else character


def _join_characters(characters: Iterable[str]) -> str:
    return "".join(" " if c == "<space>" else c for c in characters)


def _remedy(changed: Iterable[str], rewrite: Rewrite) -> str:
    for name, case in (("lower", str.lower), ("upper", str.upper)):
        if all(rewrite(case(text)).split() == case(text).split() for text in changed):
            return f"--text_case {name} writes them as these tokens do"
    return (
        "Replace such characters in the texts, of training and test sets alike, or choose another "
        "--token_type"
    )


def _culprits(changed: Mapping[str, str]) -> str:
    """The characters that don't come back, by number and name."""
    lost = sorted({c for text, back in changed.items() for c in {*"".join(text.split())} - {*back}})
    if not lost:
        return ""
    names = [f"U+{ord(c):04X} {unicodedata.name(c, 'without a name')}" for c in lost]
    more = f" and {len(names) - SHOWN_CHARACTERS} more" if len(names) > SHOWN_CHARACTERS else ""
    return f" (lost: {', '.join(names[:SHOWN_CHARACTERS])}{more})"


def _warn_of_double_spellings(texts: Iterable[str], origin: Path) -> None:
    """Warns of words whose letters are composed in one text and joined of marks in another."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for text in texts:
        if not text.isascii():
            for word in text.split():
                spellings[unicodedata.normalize("NFC", word)].add(word)
    double = [word for word, found in spellings.items() if len(found) > 1]
    if double:
        logger.warning(
            "%s: %d words are written by different characters that look alike (%s); a recogniser "
            "has to learn both, and one for the other is an error: write all texts in one form, "
            "such as Unicode's NFC",
            origin,
            len(double),
            ", ".join(sorted(double)[:SHOWN]),
        )
