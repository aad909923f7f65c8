"""Greedy search with an exported Whisper by ONNX Runtime; imports neither torch nor transformers.

The texts are those of transformers' ``generate`` with the same settings. The decoder's step has no
cache: it computes all tokens again, so a transcript of L tokens costs L * L / 2 of them.
"""

import logging
from pathlib import Path

import numpy

from espnet_prune.data.segments import segment_seconds_for, split_at_pauses
from espnet_prune.errors import EnvironmentProblem, ModelError
from espnet_prune.export.folder import DECODER, GRAPH, TOKENIZER, WHISPER, read_description
from espnet_prune.export.recogniser import FULL_SCALE
from espnet_prune.export.session import open_session

logger = logging.getLogger(__name__)


class OnnxWhisper:
    """A folder made by ``export_onnx`` from a Whisper of a recipe.

    Args:
        folder: with ``model.onnx``, ``decoder.onnx``, ``model.json`` and ``tokenizer.json``.
        segment_seconds: longer recordings are cut at pauses into pieces of at most this length, and
            of at most the window's.

    Raises:
        DataError: the description is missing.
        ModelError: another kind of model; a missing, damaged or foreign file.
        EnvironmentProblem: onnxruntime or tokenizers is missing.
    """

    trained_seconds = None  # it was trained on whole windows

    def __init__(self, folder: str | Path, segment_seconds: float | None = None) -> None:
        folder = Path(folder)
        self.about = read_description(folder, (WHISPER,))
        self.rate: int = self.about["sample_rate"]
        self.encoder = open_session(folder / GRAPH)
        self.decoder = open_session(folder / DECODER)
        self.tokenizer = _tokenizer(folder / TOKENIZER)
        longest = self.about["longest_samples"] / self.rate
        self.segment_seconds = min(segment_seconds_for(None, segment_seconds), longest)

    def transcribe(self, samples: numpy.ndarray, name: str = "") -> str:
        """Recognised text.

        Args:
            samples: int16 (samples,) at ``rate``.
            name: name of the utterance, for the warning where there are no samples.
        """
        pieces = split_at_pauses(samples, self.rate, self.segment_seconds)
        return " ".join(" ".join(self._piece(piece, name) for piece in pieces).split())

    def _piece(self, samples: numpy.ndarray, name: str) -> str:
        if not len(samples):
            logger.warning("utterance '%s': no samples, its text is empty", name)
            return ""
        speech = (samples / FULL_SCALE).astype(numpy.float32)[None]
        (encoded,) = self.encoder.run(None, {"speech": speech})
        seconds = len(samples) / self.rate
        most = self.about["least_tokens"] + round(self.about["tokens_per_second"] * seconds)
        ids = self._search(encoded, min(most, self.about["most_tokens"]))
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _search(self, encoded: numpy.ndarray, most: int) -> list[int]:
        """The most likely token after each, up to ``most`` or the end, of (1, T, D)."""
        tokens = list(self.about["prefix"])
        first = len(tokens)
        while len(tokens) < first + most:
            fed = {"tokens": numpy.array([tokens]), "encoded": encoded}
            scores = self.decoder.run(None, fed)[0][0]
            scores[self.about["suppressed"]] = -numpy.inf
            if len(tokens) == first:
                scores[self.about["suppressed_first"]] = -numpy.inf
            best = int(scores.argmax())
            if best == self.about["end"]:
                break
            tokens.append(best)
        return tokens[first:]


def _tokenizer(path: Path):
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise EnvironmentProblem(
            "tokenizers is missing; install it: pip install tokenizers"
        ) from error
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ModelError(f"{path}: can't be read ({error}); export the model again") from error
