"""Long recordings cut at pauses."""

import numpy
import pytest

from espnet_prune.data.segments import split_at_pauses
from espnet_prune.errors import ConfigError

RATE = 1000


def speech(seconds: float) -> numpy.ndarray:
    noise = numpy.random.default_rng(0).normal(size=int(seconds * RATE))
    return (3000 * noise).astype(numpy.int16)


@pytest.mark.parametrize("seconds", [0.5, 9.999, 10.0, 10.001, 61.3])
def test_the_pieces_are_all_of_it_and_none_is_too_long(seconds):
    samples = speech(seconds)
    pieces = split_at_pauses(samples, RATE, 10.0)
    assert numpy.array_equal(numpy.concatenate(pieces), samples)
    assert max(map(len, pieces)) <= 10 * RATE
    assert all(len(piece) >= 5 * RATE for piece in pieces[:-1])


def test_cuts_fall_into_pauses():
    samples = speech(30)
    for pause in (8.0, 15.0, 23.0):
        samples[int(pause * RATE) : int((pause + 0.4) * RATE)] = 0
    starts = numpy.cumsum([len(p) / RATE for p in split_at_pauses(samples, RATE, 10.0)])
    assert starts == pytest.approx([8.2, 15.2, 23.2, 30.0], abs=0.06)


def test_silence_and_full_scale_do_no_harm():
    for value in (0, -32768):
        samples = numpy.full(25 * RATE, value, dtype=numpy.int16)
        assert sum(map(len, split_at_pauses(samples, RATE, 10.0))) == len(samples)


def test_a_length_below_a_second_is_refused():
    with pytest.raises(ConfigError, match="segment_seconds"):
        split_at_pauses(speech(3), RATE, 0.5)
