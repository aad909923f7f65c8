"""Decoding with Whisper: transformers' own ``generate``, a window of 30 s at a time."""

import logging
from pathlib import Path

import numpy

from espnet_prune.data.segments import split_at_pauses
from espnet_prune.errors import ModelError
from espnet_prune.models.whisper.espnet_parts import SAMPLE_RATE, whisper_of
from espnet_prune.models.whisper.normalise import english_normaliser
from espnet_prune.models.whisper.preprocessing import is_multilingual
from espnet_prune.models.whisper.quiet import without_its_own_warning
from espnet_prune.models.whisper.tokens import WhisperText

logger = logging.getLogger(__name__)
FULL_SCALE = 32768.0  # int16 to the range of the feature extractor
TOKENS_PER_SECOND = 10  # ours: more than twice what fast speech has; a model that loops ends there
LEAST_TOKENS = 16
MOST_TOKENS = 440  # with a prefix, what the decoder has positions for


class WhisperRecogniser:
    """A saved Whisper that turns samples into text by greedy search, the only mode.

    Args:
        folder: the model's folder.
        segment_seconds: longer recordings are cut at their quietest points into pieces of at most
            this length, and of at most the window's.

    Raises:
        ModelError: the model can't be loaded, or knows several languages but not their tokens.
    """

    modes = ("greedy",)

    def __init__(self, folder: Path, segment_seconds: float) -> None:
        from espnet_prune.surgery import load

        self.model = load(folder)
        self.whole = whisper_of(self.model)
        self.segment_seconds = min(segment_seconds, self.model.encoder.extractor.chunk_length)
        config = self.model.espnet_prune_config
        self.multilingual = is_multilingual(config["token_list"])
        if self.multilingual and not getattr(self.whole.generation_config, "lang_to_id", None):
            raise ModelError(
                f"{folder}: its generation settings have no lang_to_id, by which it is told the "
                "language; start from a Whisper whose generation_config.json has it, as the hub's"
            )
        self.words = WhisperText(config["bpemodel"], self.multilingual)

    def transcribe(self, samples: numpy.ndarray, mode: str, name: str = "") -> str:
        """Recognised text, its words separated by single spaces.

        Args:
            samples: int16 (samples,).
            mode: ``greedy``.
            name: name of the utterance, for messages.

        Raises:
            ModelError: another mode.
        """
        if mode not in self.modes:
            raise ModelError(f"modes: {mode}: Whisper decodes by {list(self.modes)} alone")
        pieces = split_at_pauses(samples, SAMPLE_RATE, self.segment_seconds)
        texts = [self._piece(piece, name) for piece in pieces]
        return " ".join(" ".join(texts).split())

    def ids(self, text: str) -> list[int]:
        """The tokens of a transcript, as the model's training has them."""
        return self.words.ids(text)

    def comparable(self, text: str) -> str:
        """A transcript as its words are counted: by the rules of Whisper's authors."""
        return english_normaliser()(text)

    def _piece(self, samples: numpy.ndarray, name: str) -> str:
        import torch

        if not len(samples):
            logger.warning("utterance '%s': no samples, its text is empty", name)
            return ""
        speech = torch.from_numpy(samples.astype(numpy.float32) / FULL_SCALE)[None]
        features = self.model.encoder.features(speech, torch.tensor([len(samples)]))
        longest = LEAST_TOKENS + round(TOKENS_PER_SECOND * len(samples) / SAMPLE_RATE)
        told = {"language": "en", "task": "transcribe"} if self.multilingual else {}
        with torch.no_grad(), without_its_own_warning():
            ids = self.whole.generate(
                features,
                do_sample=False,
                num_beams=1,
                max_new_tokens=min(longest, MOST_TOKENS),
                **told,
            )
        return self.words.text(ids[0].tolist())
