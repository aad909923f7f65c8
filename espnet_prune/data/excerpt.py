"""What an utterance takes of its recording: a channel, a part, the wanted rate, another speed."""

from dataclasses import dataclass

import numpy
import soxr

from espnet_prune.data.decode import Decoded
from espnet_prune.data.entry import Entry
from espnet_prune.data.speed import perturb
from espnet_prune.errors import DataError

CANCELLED = 0.1  # of the channels' level; that of independent ones is 1 / sqrt(channels) (ours)
OVERSHOOT_SECONDS = 0.5  # by which a part may end after its recording, as with Kaldi's own program
OVERSHOT = f"its part ends up to {OVERSHOOT_SECONDS} s after its recording, and is cut there"
MEAN = "mean"


@dataclass(frozen=True)
class Reading:
    """What is done to recordings that aren't of one channel and the wanted rate.

    Attributes:
        sample_rate: rate of the samples, in Hz, to which others are resampled; None takes any.
        channel: which of several is taken, from 1, where the entry doesn't say; ``mean`` averages
            them; None refuses them.
        pipes: whether commands are run.
    """

    sample_rate: int | None = None
    channel: int | str | None = None
    pipes: bool = False


AS_IT_IS = Reading()


def taken(whole: Decoded, entry: Entry, named: str, reading: Reading = AS_IT_IS) -> Decoded:
    """What an entry takes of its source.

    Args:
        whole: the source, (samples,) or (samples, channels).
        entry: says which part, channel and speed.
        named: how errors begin.
        reading: what is done to it.

    Returns:
        Samples (samples,) as int16.

    Raises:
        DataError: several channels of which none is chosen, a part that isn't there.
    """
    notes = list(whole.notes)
    samples = _one_channel(whole, entry, named, reading, notes)
    samples = _part(samples, entry, whole.rate, named, notes)
    rate = reading.sample_rate or whole.rate
    if rate != whole.rate:
        samples = soxr.resample(samples, whole.rate, rate)
        notes.append(f"it is sampled at {whole.rate} Hz and is resampled to {rate} Hz")
    return Decoded(perturb(samples, entry.speed, rate), rate, tuple(notes), whole.rate)


def _one_channel(
    whole: Decoded, entry: Entry, named: str, reading: Reading, notes: list[str]
) -> numpy.ndarray:
    if whole.channels == 1:  # a command has chosen it, perhaps
        return whole.samples
    channel = entry.channel or reading.channel
    if channel is None:
        raise DataError(
            f"{named} has {whole.channels} channels, 1 was expected; choose one by "
            "reco2file_and_channel, or for all by --channel 1 (--channel mean averages them)"
        )
    if channel == MEAN:
        notes.append(f"its {whole.channels} channels are averaged")
        return mean_of(whole.samples, named)
    if channel > whole.channels:
        raise DataError(f"{named} has {whole.channels} channels, so there is no channel {channel}")
    notes.append(f"of its {whole.channels} channels, number {channel} is taken")
    return numpy.ascontiguousarray(whole.samples[:, channel - 1])


def _part(
    samples: numpy.ndarray, entry: Entry, rate: int, named: str, notes: list[str]
) -> numpy.ndarray:
    if not entry.is_part:
        return samples
    seconds = len(samples) / rate
    end = seconds if entry.end is None else entry.end
    if not entry.start < end or entry.start >= seconds or end > seconds + OVERSHOOT_SECONDS:
        raise DataError(
            f"{named}: there is no part from {entry.start:g} to {end:g} s, as the recording has "
            f"{seconds:.3f} s; correct `segments`, or leave it out"
        )
    if end > seconds:
        notes.append(OVERSHOT)
    found = samples[round(entry.start * rate) : round(end * rate)]
    if not len(found):
        raise DataError(f"{named} holds no samples; leave it out")
    return found


def mean_of(samples: numpy.ndarray, named: str) -> numpy.ndarray:
    """The channels' mean (samples,) of (samples, channels).

    Raises:
        DataError: nearly nothing is left of them.
    """
    mean = samples.mean(axis=1, dtype=numpy.float32)
    level = numpy.sqrt(numpy.square(samples, dtype=numpy.float64).mean())
    if numpy.sqrt(numpy.square(mean, dtype=numpy.float64).mean()) < CANCELLED * level:
        raise DataError(
            f"{named}: its {samples.shape[1]} channels cancel each other: their mean is nearly "
            "silent; take one of them (--channel 1), or leave it out"
        )
    return numpy.rint(mean).astype(numpy.int16)
