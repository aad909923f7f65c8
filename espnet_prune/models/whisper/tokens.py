"""Whisper's tokens: its own tokenizer as files of a token folder, and text to ids and back."""

from collections.abc import Sequence
from pathlib import Path

from espnet_prune.errors import ModelError
from espnet_prune.io_atomic import atomic_path, write_json, write_text
from espnet_prune.models.huggingface.build import import_transformers

HUGGING_FACE = "hugging_face"  # the type of tokens
TOKENIZER = "tokenizer.json"
START, END = "<|startoftranscript|>", "<|endoftext|>"
ENGLISH, MULTILINGUAL = ("<|notimestamps|>",), ("<|en|>", "<|transcribe|>", "<|notimestamps|>")


def write_whisper_tokens(name: str, out: Path) -> list[str]:
    """Writes ``tokens.txt``, ``tokens.json`` and ``tokenizer.json`` of a pretrained Whisper.

    Args:
        name: on the hub, or a folder of ``save_pretrained``.
        out: the folder.

    Returns:
        All tokens, by id, as many as the model has; those of timestamps have no name of their own.

    Raises:
        ModelError: there is no such tokenizer, or it isn't Whisper's.
    """
    transformers = import_transformers()
    try:
        backend = transformers.AutoTokenizer.from_pretrained(name).backend_tokenizer
        size = transformers.AutoConfig.from_pretrained(name).vocab_size
    except (OSError, ValueError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{name}: its tokenizer can't be loaded ({reason}); give a folder that "
            "save_pretrained wrote, or a name on the hub on a machine with internet"
        ) from error
    vocabulary = backend.get_vocab(with_added_tokens=True)
    for token in (START, END, *ENGLISH):
        if token not in vocabulary:
            raise ModelError(f"{name}: the tokenizer has no {token}; it isn't Whisper's")
    if max(vocabulary.values()) >= size:
        raise ModelError(f"{name}: the tokenizer has more tokens than the model, {size}")
    tokens = [f"<unnamed_{i}>" for i in range(size)]
    for token, number in vocabulary.items():
        tokens[number] = token
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / TOKENIZER) as temporary:
        backend.save(str(temporary))
    kind = {"type": HUGGING_FACE, "vocab_size": len(tokens), "model": TOKENIZER}
    write_json(out / "tokens.json", kind)
    write_text(out / "tokens.txt", "\n".join(tokens) + "\n")
    return tokens


class WhisperText:
    """Text to the ids that Whisper's decoder learns, and ids back to text.

    Args:
        path: a ``tokenizer.json``.
        multilingual: whether the model is told language and task.
    """

    def __init__(self, path: str | Path, multilingual: bool) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(path))
        names = MULTILINGUAL if multilingual else ENGLISH
        self.prefix = [self.tokenizer.token_to_id(name) for name in names]

    def ids(self, text: str) -> list[int]:
        """Ids of a transcript, lower-cased, behind the prefix; start and end are ESPnet's."""
        encoded = self.tokenizer.encode(" " + text.lower(), add_special_tokens=False)
        return [*self.prefix, *encoded.ids]

    def text(self, ids: Sequence[int]) -> str:
        """The transcript of generated ids, special ones left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()
