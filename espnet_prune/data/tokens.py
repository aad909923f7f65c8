"""Tokens: sentencepiece BPE or characters, as a token list in ESPnet's order.

``<blank>`` first, then ``<unk>``, the tokens, ``<sos/eos>`` last. Texts are taken as they are
written: sentencepiece's own Unicode normalisation (NFKC) is off, because references are scored
without it.
"""

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.config import check_choice
from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.data.round_trip import check_round_trip
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.io_atomic import atomic_path, read_json, write_json, write_text
from espnet_prune.record import file_digest

TYPES = ("bpe", "char")
BLANK, UNKNOWN, SPACE, END = "<blank>", "<unk>", "<space>", "<sos/eos>"
BPE_MODEL = "bpe.model"
LIST, DESCRIPTION = "tokens.txt", "tokens.json"
FILES = (LIST, DESCRIPTION, BPE_MODEL, "tokenizer.json")  # what models are trained by
LONGEST_TEXT = 1_000_000  # bytes; sentencepiece leaves out longer ones, by default above 4,192


def make_tokens(text: Path, out: Path, kind: str, vocabulary_size: int) -> list[str]:
    """Writes ``tokens.txt``, ``tokens.json`` and the tokenizer's file, if there is one.

    Args:
        text: a Kaldi ``text`` file, of the training set.
        out: the folder.
        kind: ``bpe`` or ``char``.
        vocabulary_size: number of BPE tokens, ``<unk>`` included, so the list is 2 longer;
            ESPnet's ``nbpe`` counts those 2 as well. Characters don't need it.

    Returns:
        The token list.

    Raises:
        ConfigError: the vocabulary is too large or too small for the text.
        DataError: the tokens can't write a text.
    """
    check_choice("--type", kind, TYPES)
    texts = read_map(text)
    sentences = list(texts.values())
    if kind == "char":
        pieces = sorted({c for sentence in sentences for c in sentence.replace(" ", "")})
        pieces.append(SPACE)
    else:
        pieces = _train_bpe(sentences, out / BPE_MODEL, vocabulary_size, text)
    tokens = [BLANK, UNKNOWN, *pieces, END]
    write_tokens(out, tokens, kind, out / BPE_MODEL if kind == "bpe" else None)
    check_round_trip(out, texts, text)
    return tokens


def write_tokens(out: Path, tokens: Sequence[str], kind: str, model: Path | None) -> None:
    """Writes a folder of tokens.

    Args:
        out: the folder.
        tokens: by index.
        kind: ``bpe`` or ``char``.
        model: the sentencepiece model, copied unless it stands there already.
    """
    if model is not None and model != out / BPE_MODEL:
        with atomic_path(out / BPE_MODEL) as temporary:
            shutil.copyfile(model, temporary)
    name = BPE_MODEL if model is not None else None
    write_json(out / DESCRIPTION, {"type": kind, "vocab_size": len(tokens), "model": name})
    write_text(out / LIST, "\n".join(tokens) + "\n")


def check_tokens(folder: Path, token_list: Sequence[str], model: Path | None, owner: str) -> None:
    """Makes sure that a folder of tokens is the one that a model was trained with.

    Args:
        folder: folder of the tokens.
        token_list: the model's own.
        model: its own BPE model or tokenizer, if it has one.
        owner: the model, for the error.

    Raises:
        ConfigError: a token is another, or the BPE model or tokenizer is; names both.
        DataError: the folder has no tokens.
    """
    remedy = (
        "make the tokens as they were (stage 4, with that --token_type and --vocab_size on that "
        "training set), or train another teacher with these: another --tag"
    )
    try:
        with (folder / LIST).open(encoding="utf-8") as file:
            found = [line.rstrip() for line in file]
    except FileNotFoundError as error:
        raise DataError(f"{folder / LIST}: no such file; run stage 4 (tokens) first") from error
    own = [token.rstrip() for token in token_list]  # as ESPnet reads them
    if found != own:
        pairs = enumerate(itertools.zip_longest(found, own), 1)
        line, (ours, theirs) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
        raise ConfigError(
            f"{folder / LIST}: its {len(found)} tokens are not the {len(own)} that {owner} was "
            f"trained with (line {line}: {ours!r}, there {theirs!r}); {remedy}"
        )
    name = read_json(folder / DESCRIPTION)["model"]
    digests = [path and file_digest(path) for path in (name and folder / name, model)]
    if digests[0] != digests[1]:
        raise ConfigError(
            f"{folder / (name or DESCRIPTION)}: {name or 'none'} is not the BPE model or tokenizer "
            f"that {owner} was trained with, {model}; {remedy}"
        )


def _train_bpe(sentences: list[str], target: Path, size: int, text: Path) -> list[str]:
    import sentencepiece

    try:
        with atomic_path(target) as temporary, temporary.open("wb") as writer:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=writer,
                vocab_size=size,
                model_type="bpe",
                character_coverage=1.0,
                normalization_rule_name="identity",
                max_sentence_length=LONGEST_TEXT,
                bos_id=-1,
                eos_id=-1,
                unk_id=0,
                num_threads=1,
                minloglevel=2,
            )
    except (RuntimeError, OSError) as error:
        characters = len(set("".join(sentences)))
        raise ConfigError(
            f"--vocab_size {size}: sentencepiece can't make so many tokens of {text} "
            f"({characters} different characters; {str(error).strip()[-120:]}); choose another"
        ) from error
    processor = sentencepiece.SentencePieceProcessor(model_file=str(target))
    return [processor.id_to_piece(i) for i in range(1, processor.get_piece_size())]
