"""Cuts a long recording at its quietest points, so that attention over it stays affordable."""

import numpy

from espnet_prune.config import check_range

FRAME_SECONDS = 0.02
SMOOTHED_SECONDS = 0.3  # a pause between words; shorter dips lie inside them (ours)
SEARCHED_SHARE = 0.5  # of the longest segment: its end, where a cut is looked for (ours)


def split_at_pauses(samples: numpy.ndarray, rate: int, longest: float) -> list[numpy.ndarray]:
    """Splits samples into consecutive pieces of at most ``longest`` seconds.

    Each cut falls into the middle of the quietest 0.3 s of the last half of what may still be
    taken, so no piece is shorter than half of ``longest``, except the last one.

    Args:
        samples: (samples,), integer or floating point.
        rate: in Hz.
        longest: in seconds, at least 1.

    Returns:
        Views of ``samples``; joined, they are all of it.

    Raises:
        ConfigError: ``longest`` is below 1 second.
    """
    check_range("segment_seconds", longest, 1, 1e6)
    most, frame = int(longest * rate), int(FRAME_SECONDS * rate)
    pieces, start = [], 0
    while len(samples) - start > most:
        first = start + int(most * (1 - SEARCHED_SHARE))
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
