"""Long recordings cut at pauses."""

import numpy
import pytest

from espnet_prune.data.segments import segment_seconds_for, split_at_pauses
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


@pytest.mark.parametrize("longest", [1.5, 3.0, 5.0])
def test_short_pieces_are_cut_wherever_there_is_a_pause(longest):
    samples = speech(30)
    pauses = numpy.arange(1.1, 29, 1.3)
    for pause in pauses:
        samples[int(pause * RATE) : int((pause + 0.3) * RATE)] = 0
    pieces = split_at_pauses(samples, RATE, longest)
    cuts = numpy.cumsum([len(piece) / RATE for piece in pieces])[:-1]
    assert max(map(len, pieces)) <= longest * RATE
    assert all(numpy.abs(pauses + 0.15 - cut).min() < 0.1 for cut in cuts)


@pytest.mark.parametrize(
    ("trained", "wanted", "expected"),
    [(None, None, 40), (3.3, None, 3.3), (90, None, 40), (0.2, None, 1), (3.3, 25, 25)],
)
def test_pieces_are_as_long_as_what_a_model_was_trained_on(trained, wanted, expected):
    assert segment_seconds_for(trained, wanted) == expected


def test_silence_and_full_scale_do_no_harm():
    for value in (0, -32768):
        samples = numpy.full(25 * RATE, value, dtype=numpy.int16)
        assert sum(map(len, split_at_pauses(samples, RATE, 10.0))) == len(samples)


def test_a_length_below_a_second_is_refused():
    with pytest.raises(ConfigError, match="segment_seconds"):
        split_at_pauses(speech(3), RATE, 0.5)
