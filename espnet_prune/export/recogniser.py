"""Greedy CTC with ONNX Runtime: an exported folder turns samples into words with times."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from espnet_prune.data.segments import split_at_pauses
from espnet_prune.errors import ModelError
from espnet_prune.export.onnx import BPE, DESCRIPTION, GRAPH, SCHEMA, TOKENS, open_session
from espnet_prune.io_atomic import read_json

FULL_SCALE = 32768.0  # of int16
WORD_START, SPACE = "▁", "<space>"  # in sentencepiece's pieces, in lists of characters


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


class OnnxRecogniser:
    """A folder made by ``export_onnx`` from a whole model.

    Args:
        folder: with ``model.onnx``, ``model.json`` and the tokens.
        segment_seconds: longer recordings are cut at pauses into pieces of at most this length.

    Raises:
        DataError: a file is missing.
        ModelError: an encoder alone, another schema, a damaged graph.
    """

    def __init__(self, folder: str | Path, segment_seconds: float = 40.0) -> None:
        folder = Path(folder)
        self.about = read_json(folder / DESCRIPTION)
        if self.about.get("schema") != SCHEMA or self.about.get("kind") != "ctc_speech":
            raise ModelError(
                f"{folder / DESCRIPTION}: schema {self.about.get('schema')!r} and kind "
                f"{self.about.get('kind')!r}, expected {SCHEMA} and 'ctc_speech'; export a whole "
                "model with CTC"
            )
        self.rate: int = self.about["sample_rate"]
        self.segment_seconds = min(segment_seconds, self.about["longest_samples"] / self.rate)
        self.tokens = (folder / TOKENS).read_text(encoding="utf-8").splitlines()
        self.session = open_session(folder / GRAPH)
        self.pieces = _bpe(folder / BPE) if self.about["token_type"] == "bpe" else None

    def transcribe(self, samples: numpy.ndarray) -> str:
        """Recognised text of int16 samples (samples,) at ``rate``."""
        return " ".join(word.text for word in self.words(samples))

    def words(self, samples: numpy.ndarray) -> list[Word]:
        """Recognised words with their times, of int16 samples (samples,) at ``rate``."""
        words, start = [], 0
        for piece in split_at_pauses(samples, self.rate, self.segment_seconds):
            if len(piece) >= self.about["least_samples"]:
                words += self._piece(piece, start / self.rate)
            start += len(piece)
        return words

    def _piece(self, samples: numpy.ndarray, offset: float) -> list[Word]:
        speech = (samples / FULL_SCALE).astype(numpy.float32)[None]
        (log_probs,) = self.session.run(["log_probs"], {"speech": speech})
        drop = {self.about["blank"], self.about["end"]}
        emitted = collapse(log_probs[0].argmax(-1), drop)
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


def collapse(best: numpy.ndarray, drop: set[int]) -> list[tuple[int, int]]:
    """CTC's best path to labels.

    Args:
        best: (T,) most likely token of each frame.
        drop: ids that are no label: blank and end of sentence.

    Returns:
        Label and frame at which it is first emitted.
    """
    changed = numpy.flatnonzero(numpy.diff(best, prepend=-1))
    return [(int(best[i]), int(i)) for i in changed if int(best[i]) not in drop]


def _bpe(path: Path):
    from sentencepiece import SentencePieceProcessor

    if not path.exists():
        raise ModelError(f"{path}: no such file; export the model again")
    return SentencePieceProcessor(model_file=str(path))
