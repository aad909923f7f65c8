"""What ESPnet's data pipeline does with text for Whisper: its own tokens, lower case."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy

from espnet_prune.models.whisper.tokens import WhisperText

ENGLISH_VOCABULARY = 51864  # OpenAI: the English models' vocabulary; others have one token more


class WhisperPreprocessor:
    """Turns an utterance's text into ids; the samples stay as they are.

    Args:
        tokenizer: a ``tokenizer.json``.
        multilingual: whether the model is told language and task.
    """

    def __init__(self, tokenizer: str, multilingual: bool) -> None:
        self.text = WhisperText(tokenizer, multilingual)

    def __call__(self, uid: str, data: dict[str, Any]) -> dict[str, numpy.ndarray]:
        """ESPnet's contract: the utterance's name and its data."""
        if isinstance(data.get("text"), str):
            data["text"] = numpy.array(self.text.ids(data["text"]), dtype=numpy.int64)
        return data


class OwnText:
    """A mixin of ESPnet tasks: tokens of a pretrained Whisper are made by its own tokenizer."""

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> Callable | None:
        """ESPnet's own, but for tokens of type ``hugging_face``."""
        if args.token_type != "hugging_face":
            return super().build_preprocess_fn(args, train)
        return WhisperPreprocessor(args.bpemodel, is_multilingual(args.token_list))


def is_multilingual(tokens: list[str] | str) -> bool:
    """Whether these are the tokens of a Whisper that knows several languages.

    Args:
        tokens: the list, or the file that holds it.
    """
    if isinstance(tokens, str):
        with open(tokens, encoding="utf-8") as file:
            return sum(1 for _ in file) > ENGLISH_VOCABULARY
    return len(tokens) > ENGLISH_VOCABULARY
