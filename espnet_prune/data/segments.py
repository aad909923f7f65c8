"""Cuts a long recording at its quietest points, so that attention over it stays affordable."""

import numpy

from espnet_prune.config import check_range

FRAME_SECONDS = 0.02
SMOOTHED_SECONDS = 0.3  # a pause between words; shorter dips lie inside them (ours)
# Ours: a cut is looked for in the last half of the longest segment. Where that is too short to hold
# a pause for certain, in its last 5 s, or nearly all of it.
SEARCHED_SHARE, SEARCHED_SECONDS, MOST_SEARCHED_SHARE = 0.5, 5.0, 0.85
LONGEST_SECONDS = 40.0  # of a segment: attention over it is still affordable (ours)
LEAST_SECONDS = 1.0


def segment_seconds_for(trained: float | None, wanted: float | None = None) -> float:
    """The longest segment for a model.

    Args:
        trained: seconds of the longest utterance that it was trained on, where that is known: it
            makes little of longer ones.
        wanted: by the user; wins.
    """
    if wanted is not None:
        return wanted
    longest = LONGEST_SECONDS if trained is None else min(trained, LONGEST_SECONDS)
    return max(longest, LEAST_SECONDS)


def split_at_pauses(samples: numpy.ndarray, rate: int, longest: float) -> list[numpy.ndarray]:
    """Splits samples into consecutive pieces of at most ``longest`` seconds.

    Each cut falls into the middle of the quietest 0.3 s of the last half of what may still be
    taken, so no piece is shorter than half of ``longest``, except the last one; if that is below
    10 s, more than the last half is searched.

    Args:
        samples: (samples,), integer or floating point.
        rate: in Hz.
        longest: in seconds, at least 1.

    Returns:
        Views of ``samples``; joined, they are all of it.

    Raises:
        ConfigError: ``longest`` is below 1 second.
    """
    check_range("segment_seconds", longest, LEAST_SECONDS, 1e6)
    most, frame = int(longest * rate), int(FRAME_SECONDS * rate)
    at_least = min(MOST_SEARCHED_SHARE * longest, SEARCHED_SECONDS)
    searched = int(max(SEARCHED_SHARE * longest, at_least) * rate)
    pieces, start = [], 0
    while len(samples) - start > most:
        first = start + most - searched
        cut = first + _quietest(samples[first : start + most], frame)
        pieces.append(samples[start:cut])
        start = cut
    return [*pieces, samples[start:]]


def _quietest(samples: numpy.ndarray, frame: int) -> int:
    """The sample in the middle of the stretch with the least energy."""
    frames = len(samples) // frame
    parts = samples[: frames * frame].astype(numpy.float64).reshape(frames, frame)
    width = min(frames, round(SMOOTHED_SECONDS / FRAME_SECONDS))
    energy = numpy.convolve((parts**2).sum(axis=1), numpy.ones(width), mode="valid")
    return int((energy.argmin() + width / 2) * frame)
