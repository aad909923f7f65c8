"""Transcripts are compared as Whisper's authors compare them."""

import sys

import pytest

from espnet_prune.errors import EnvironmentProblem
from espnet_prune.models.whisper.normalise import english_normaliser, normalisation_name


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("HELLO BERTIE ANY GOOD IN YOUR MIND", " Hello Bertie, any good in your mind?"),
        ("TWENTY ONE COLOURS", "21 colors."),
        ("IN EIGHTEEN SIXTY ONE", "In 1861,"),
        ("MISTER QUILTER", "Mr. Quilter"),
        ("I'M NOT SURE IT'S GREY", "I am not sure, it is gray!"),
        ("THE CAUSE OF IT", "the cause -- of it"),
        ("WELL THEN", "Hmm, well [laughs] then"),
    ],
)
def test_the_same_words_become_the_same_text(reference, hypothesis):
    normalise = english_normaliser()
    assert normalise(reference) == normalise(hypothesis)


def test_other_words_stay_different():
    normalise = english_normaliser()
    assert normalise("TWENTY ONE") != normalise("twenty-two")
    assert normalise("CAUSE") != normalise("because")


def test_the_name_says_what_was_used():
    assert "EnglishTextNormalizer of transformers 5" in normalisation_name()
    assert "whisper_normalizer 0.1.15" in normalisation_name()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper_normalizer", None)
    english_normaliser.cache_clear()
    with pytest.raises(EnvironmentProblem, match=r"whisper_normalizer.*espnet_prune\[hf\]"):
        english_normaliser()
    english_normaliser.cache_clear()
