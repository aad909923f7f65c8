"""A trained ESPnet model as a teacher: its tokens, and itself with its weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from espnet_prune.data.tokens import BPE_MODEL, write_tokens
from espnet_prune.errors import ModelError
from espnet_prune.io_torch import read_torch
from espnet_prune.models.espnet.known import check_model
from espnet_prune.models.espnet.trained import ASR, Trained, opened
from espnet_prune.surgery.serialize import DESCRIPTION, load, load_strictly, read_description

TOKEN_TYPES = ("bpe", "char", "word")  # bpe stands for all kinds of sentencepiece
# what ESPnet does to transcripts before they become tokens, which a recipe here doesn't
OF_TRANSCRIPTS = ("cleaner", "non_linguistic_symbols", "g2p")


class EspnetTeacher(ABC):
    """A trained ESPnet model, as an ``Origin``.

    Attributes:
        source: what the user named, for errors.
        config: its ESPnet configuration; ``token_list`` a list, ``bpemodel`` a file.
    """

    def __init__(self, source: str, config: Mapping[str, Any]) -> None:
        self.source = source
        self.config = config

    def write_tokens(self, out: Path) -> list[str]:
        """Writes a folder of the model's tokens, and returns the list."""
        kind, tokens = self.config["token_type"], list(self.config["token_list"])
        model = self.config.get("bpemodel") if kind == "bpe" else None
        write_tokens(out, tokens, kind, model and Path(model))
        return tokens

    def build(self, tokens: Path) -> nn.Module:
        """The ESPnetASRModel with its weights, every one of them, in evaluation mode.

        Args:
            tokens: the folder that ``write_tokens`` made.

        Raises:
            ModelError: no model can be built of it; a weight that is missing, or too many.
        """
        model = self.load()
        bpe = tokens / BPE_MODEL
        model.espnet_prune_config["bpemodel"] = str(bpe.resolve()) if bpe.exists() else None
        return model

    @abstractmethod
    def load(self) -> nn.Module:
        """The same by the file of tokens that its own configuration names."""


class TrainedTeacher(EspnetTeacher):
    """What ESPnet's training left.

    Args:
        trained: its files.

    Raises:
        ModelError: a part of it isn't known; nothing is loaded before.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained.source, trained.config)
        self.weights = trained.weights
        self.task = trained.task
        check_model(self.config, self.source)
        check_tokens(self.config, self.source)

    def load(self) -> nn.Module:
        from espnet_prune.models.espnet.build import build_model

        model = build_model(self.config, self.task)
        load_strictly(model, read_torch(self.weights), str(self.weights))
        return model.eval()

    def write_tokens(self, out: Path) -> list[str]:
        self._check_task()
        return super().write_tokens(out)

    def build(self, tokens: Path) -> nn.Module:
        self._check_task()
        return super().build(tokens)

    def _check_task(self) -> None:
        if self.task != ASR:
            raise ModelError(
                f"{self.source}: a model of ESPnet's task {self.task}; recipes train and decode "
                "those of task asr. Prune it in Python: espnet_prune.load takes it"
            )


class SavedTeacher(EspnetTeacher):
    """What ``espnet_prune.save`` wrote, cut or not.

    Args:
        folder: the model's.

    Raises:
        DataError, ModelError: no model of ESPnet's kind is there.
    """

    def __init__(self, folder: Path) -> None:
        description = read_description(folder)
        if description.kind != "espnet_asr":
            raise ModelError(
                f"{folder}: {DESCRIPTION}: kind {description.kind}; a teacher is a whole ESPnet "
                "model, kind espnet_asr"
            )
        config = dict(description.config)
        if config.get("bpemodel"):
            config["bpemodel"] = str(folder.resolve() / str(config["bpemodel"]))
        super().__init__(str(folder), config)

    def load(self) -> nn.Module:
        return load(self.source)


def is_saved(source: str) -> bool:
    """Whether a folder is one that ``espnet_prune.save`` wrote."""
    return (Path(source) / DESCRIPTION).is_file()


@contextmanager
def open_saved(source: str) -> Iterator[EspnetTeacher]:
    """A model that ``espnet_prune.save`` wrote."""
    yield SavedTeacher(Path(source))


@contextmanager
def open_trained(source: str) -> Iterator[EspnetTeacher]:
    """A model that ESPnet trained, by what a user names, as ``trained.opened`` takes it."""
    with opened(source) as trained:
        yield TrainedTeacher(trained)


def check_tokens(config: Mapping[str, Any], source: str) -> None:
    """Makes sure that a configuration's tokens can be made of transcripts here.

    Raises:
        ModelError: they can't, or they aren't those of the sentencepiece model.
    """
    kind = config.get("token_type")
    if kind not in TOKEN_TYPES:
        raise ModelError(
            f"{source}: token_type: {kind} can't be imported; known are {', '.join(TOKEN_TYPES)}"
        )
    if not isinstance(config.get("token_list"), list):
        raise ModelError(f"{source}: token_list: a list of tokens was expected")
    if kind == "bpe":
        _check_pieces(config, source)
    for key in OF_TRANSCRIPTS:
        if config.get(key):
            raise ModelError(
                f"{source}: {key}: {config[key]}: a recipe here doesn't do that to its "
                "transcripts; do it in the data, and set the key to null in config.yaml"
            )


def _check_pieces(config: Mapping[str, Any], source: str) -> None:
    """ModelError where the tokens aren't those of the sentencepiece model."""
    import sentencepiece

    file = config.get("bpemodel")
    if not file:
        raise ModelError(f"{source}: token_type: bpe, but it names no bpemodel that makes them")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=file)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{file}: can't be read as a sentencepiece model ({error})") from error
    known = set(config["token_list"])
    lacking = [
        processor.id_to_piece(i)
        for i in range(processor.get_piece_size())
        if not (processor.is_control(i) or processor.is_unknown(i))
        and processor.id_to_piece(i) not in known
    ]
    if lacking:
        raise ModelError(
            f"{file}: {len(lacking)} of its pieces, such as {lacking[0]!r}, aren't among the "
            f"tokens of {source}; the model that the tokens were made by was expected"
        )
