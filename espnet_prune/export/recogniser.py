"""Greedy CTC by ONNX Runtime: samples to words with times; imports neither torch nor ESPnet."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from espnet_prune.data.segments import segment_seconds_for, split_at_pauses
from espnet_prune.errors import ModelError
from espnet_prune.export.folder import BPE, GRAPH, SPEECH, TOKENS, read_description, read_tokens
from espnet_prune.export.session import open_session
from espnet_prune.models.graph_names import SPECIAL, TRAINED_SECONDS

logger = logging.getLogger(__name__)
FULL_SCALE = 32768.0  # of int16
WORD_START, SPACE = "▁", "<space>"  # in sentencepiece's pieces, in lists of characters
UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Word:
    """A word and when it is said, by the frames at which CTC emits its first and last token.

    Attributes:
        text: the word.
        start: in seconds.
        end: in seconds.
    """

    text: str
    start: float
    end: float


class GreedyRecogniser(ABC):
    """What both kinds of recogniser share: pieces of a recording, the best path, words.

    Args:
        about: the model's description, as ``export.folder.describe`` gives it.
        tokens: by index.
        bpe_model: the sentencepiece model, read where the tokens are its pieces.
        segment_seconds: longer recordings are cut at pauses into pieces of at most this length; by
            default that of the longest utterance that the model was trained on, or 40 s.

    Raises:
        ModelError: the sentencepiece model is missing or damaged.
    """

    def __init__(
        self,
        about: Mapping,
        tokens: Sequence[str],
        bpe_model: Path,
        segment_seconds: float | None = None,
    ) -> None:
        self.about = about
        self.tokens = tokens
        self.rate: int = about["sample_rate"]
        self.trained_seconds: float | None = about.get(TRAINED_SECONDS)
        longest = segment_seconds_for(self.trained_seconds, segment_seconds)
        self.segment_seconds = min(longest, about["longest_samples"] / self.rate)
        unknown = {i for i, token in enumerate(tokens) if token == UNKNOWN}
        # ids that stand for no text
        self.special = {about["blank"], about["end"], *about.get(SPECIAL, ())} | unknown
        self.pieces = _bpe(bpe_model) if about["token_type"] == "bpe" else None

    @abstractmethod
    def log_probs(self, speech: numpy.ndarray) -> numpy.ndarray:
        """CTC's log-probabilities (T, V) of samples (samples,) within -1 to 1, float32."""

    def transcribe(self, samples: numpy.ndarray, name: str = "") -> str:
        """Recognised text of int16 samples (samples,) at ``rate``; ``name`` as in ``words``."""
        return " ".join(word.text for word in self.words(samples, name))

    def words(self, samples: numpy.ndarray, name: str = "") -> list[Word]:
        """Recognised words with their times.

        Args:
            samples: int16 (samples,) at ``rate``.
            name: name of the utterance, for the warning.

        Returns:
            The words; none if the recording is too short for the model, with a warning.
        """
        words, start = [], 0
        for piece in split_at_pauses(samples, self.rate, self.segment_seconds):
            words += self._piece(piece, start / self.rate, name)
            start += len(piece)
        return words

    def _piece(self, samples: numpy.ndarray, offset: float, name: str) -> list[Word]:
        least = self.about["least_samples"]
        if len(samples) < least:
            logger.warning(
                "utterance '%s': %d samples are too short to decode, its text is empty "
                "(the model needs %d)",
                name,
                len(samples),
                least,
            )
            return []
        log_probs = self.log_probs((samples / FULL_SCALE).astype(numpy.float32))
        emitted = collapse(log_probs.argmax(-1), self.special)
        seconds = self.about["samples_a_frame"] / self.rate
        return [
            Word(self._text(ids), offset + seconds * first, offset + seconds * (last + 1))
            for ids, first, last in self._groups(emitted)
        ]

    def _groups(self, emitted: Iterable[tuple[int, int]]) -> list[tuple[list[int], int, int]]:
        """Token ids, first and last frame of each word."""
        groups: list[tuple[list[int], int, int]] = []
        begins = True
        for token, frame in emitted:
            text, kind = self.tokens[token], self.about["token_type"]
            if kind == "char" and text == SPACE:
                begins = True
                continue
            begins = begins or kind == "word" or (kind == "bpe" and text.startswith(WORD_START))
            if begins or not groups:
                groups.append(([token], frame, frame))
            else:
                ids, first, _ = groups[-1]
                groups[-1] = ([*ids, token], first, frame)
            begins = False
        return [group for group in groups if self._text(group[0])]

    def _text(self, ids: Sequence[int]) -> str:
        tokens = [self.tokens[i] for i in ids]
        return "".join(self.pieces.decode_pieces(tokens) if self.pieces else tokens).strip()


class OnnxRecogniser(GreedyRecogniser):
    """A folder made by ``export_onnx`` from a whole model.

    Args:
        folder: with ``model.onnx``, ``model.json`` and the tokens.
        segment_seconds: as in the base class.
        threads: number of threads of ONNX Runtime, by default as ``open_session`` has them.

    Raises:
        DataError: the description is missing.
        ModelError: an encoder alone, another schema; a missing, damaged or foreign file.
        EnvironmentProblem: onnxruntime is missing.
    """

    def __init__(
        self,
        folder: str | Path,
        segment_seconds: float | None = None,
        threads: int | None = None,
    ) -> None:
        folder = Path(folder)
        about = read_description(folder, (SPEECH,))
        super().__init__(about, read_tokens(folder), folder / BPE, segment_seconds)
        self.session = open_session(folder / GRAPH, threads)
        outputs = {output.name: output.shape[-1] for output in self.session.get_outputs()}
        if outputs.get("log_probs") != len(self.tokens):
            raise ModelError(
                f"{folder / TOKENS}: {len(self.tokens)} tokens, but the graph has "
                f"{outputs.get('log_probs')}; export the model again"
            )

    def log_probs(self, speech: numpy.ndarray) -> numpy.ndarray:
        """As the base class says."""
        return self.session.run(["log_probs"], {"speech": speech[None]})[0][0]


def collapse(best: numpy.ndarray, drop: set[int]) -> list[tuple[int, int]]:
    """CTC's best path to labels.

    Args:
        best: (T,) most likely token of each frame.
        drop: ids that are no label.

    Returns:
        Label and frame at which it is first emitted.
    """
    changed = numpy.flatnonzero(numpy.diff(best, prepend=-1))
    return [(int(best[i]), int(i)) for i in changed if int(best[i]) not in drop]


def _bpe(path: Path):
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"{path}: can't be read as a sentencepiece model ({error}); export the model again"
        ) from error
