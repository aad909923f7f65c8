"""Tokens: sentencepiece BPE or characters, as a token list in ESPnet's order.

``<blank>`` first, then ``<unk>``, the tokens, ``<sos/eos>`` last.
"""

from pathlib import Path

from espnet_prune.config import check_choice
from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.errors import ConfigError
from espnet_prune.io_atomic import atomic_path, write_json, write_text

TYPES = ("bpe", "char", "hugging_face")
BLANK, UNKNOWN, SPACE, END = "<blank>", "<unk>", "<space>", "<sos/eos>"
BPE_MODEL = "bpe.model"


def make_tokens(
    text: Path, out: Path, kind: str, vocabulary_size: int, tokenizer: str | None = None
) -> list[str]:
    """Writes ``tokens.txt``, ``tokens.json`` and the tokenizer's file, if there is one.

    Args:
        text: a Kaldi ``text`` file, of the training set.
        out: the folder.
        kind: ``bpe``, ``char``, or ``hugging_face`` for those of a pretrained Whisper.
        vocabulary_size: number of BPE tokens, ``<unk>`` included, so the list is 2 longer;
            ESPnet's ``nbpe`` counts those 2 as well. The others don't need it.
        tokenizer: for ``hugging_face``, the pretrained model's name or folder.

    Returns:
        The token list.

    Raises:
        ConfigError: the vocabulary is too large or too small for the text.
    """
    check_choice("--type", kind, TYPES)
    if (tokenizer is not None) != (kind == "hugging_face"):
        raise ConfigError("--tokenizer: it goes with --type hugging_face, and that needs it")
    if tokenizer is not None:
        from espnet_prune.hf.tokens import write_whisper_tokens

        return write_whisper_tokens(tokenizer, out)
    sentences = list(read_map(text).values())
    if kind == "char":
        pieces = sorted({c for sentence in sentences for c in sentence.replace(" ", "")})
        pieces.append(SPACE)
    else:
        pieces = _train_bpe(sentences, out / BPE_MODEL, vocabulary_size, text)
    tokens = [BLANK, UNKNOWN, *pieces, END]
    model = BPE_MODEL if kind == "bpe" else None
    write_json(out / "tokens.json", {"type": kind, "vocab_size": len(tokens), "model": model})
    write_text(out / "tokens.txt", "\n".join(tokens) + "\n")
    return tokens


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
