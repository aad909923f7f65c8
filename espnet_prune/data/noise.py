"""A data set in noise: white noise, or the babble of other speakers, at a ratio to the speech.

The noise of an utterance depends on the seed and its ID alone, so it is the same for every model
and on every machine. The ratio is that of the whole utterance's power to the whole noise's. Where
the sum would be louder than 16 bits hold, both are made quieter alike.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy

from espnet_prune.config import check_choice, check_range
from espnet_prune.data.audio_io import read_audio, write_audio
from espnet_prune.data.decode import FULL_SCALE
from espnet_prune.data.kaldi_dir import read_data, where, write_data, write_map
from espnet_prune.data.parallel import parallel_map
from espnet_prune.errors import DataError

WHITE, BABBLE = "white", "babble"
KINDS = (WHITE, BABBLE)
LENGTHS = "utt2num_samples"


@dataclass(frozen=True)
class Noise:
    """What is added.

    Attributes:
        kind: ``white``, or ``babble``: utterances of other speakers of the same set, equally loud,
            each begun anew where it ends.
        snr_db: speech to noise.
        talkers: how many others babble.
        seed: seed of all that is drawn.
    """

    kind: str
    snr_db: float
    talkers: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("--kind", self.kind, KINDS)
        check_range("--snr", self.snr_db, -40, 100)
        check_range("--talkers", self.talkers, 1, 1000)
        check_range("--seed", self.seed, 0, 2**32 - 1)


@dataclass(frozen=True)
class _Job:
    """One recording to make; ``others`` are the talkers' recordings, by where they are named."""

    entry: str
    place: str
    others: Mapping[str, str]
    noise: Noise
    words: tuple[int, int]  # of the random generator
    target: Path


def mixed(speech: numpy.ndarray, noise: numpy.ndarray, snr_db: float) -> numpy.ndarray:
    """Speech with noise at a ratio of their powers, float64 (samples,); silence stays as it is.

    Args:
        speech: (samples,).
        noise: (samples,), of any loudness.
        snr_db: speech to noise, in dB.
    """
    power = numpy.mean(speech**2) / 10 ** (snr_db / 10)
    return speech + noise * numpy.sqrt(power / max(numpy.mean(noise**2), 1e-12))


def add_noise_to(source: Path, out: Path, noise: Noise, jobs: int = 1) -> int:
    """Writes a data directory, such as a folder of ``dump``, of the same utterances in noise.

    Args:
        source: a data directory.
        out: the one to make; audio goes to ``out/audio``, in FLAC.
        noise: what is added.
        jobs: number of processes.

    Returns:
        Number of utterances.

    Raises:
        DataError: a recording can't be read; nobody else speaks in the set.
    """
    data = read_data(source)
    work = []
    for utterance, entry in data.recordings.items():
        words = (noise.seed, zlib.crc32(utterance.encode()))
        others = _others(data.speakers, utterance, noise, words, source)
        named = {where(source, other): data.recordings[other] for other in others}
        target = (out / "audio" / f"{utterance}.flac").resolve()
        work.append(_Job(entry, where(source, utterance), named, noise, words, target))
    lengths = dict(zip(data.recordings, parallel_map(_make, work, jobs, "noise"), strict=True))
    write_map(out / LENGTHS, {utterance: str(n) for utterance, n in lengths.items()})
    targets = dict(zip(data.recordings, (str(job.target) for job in work), strict=True))
    write_data(out, replace(data, recordings=targets))
    return len(targets)


def _others(
    speakers: Mapping[str, str],
    utterance: str,
    noise: Noise,
    words: tuple[int, int],
    source: Path,
) -> Sequence[str]:
    """Utterances of other speakers, one a talker; each once, if there are enough."""
    if noise.kind != BABBLE:
        return ()
    others = [other for other, name in speakers.items() if name != speakers[utterance]]
    if not others:
        raise DataError(
            f"{source / 'utt2spk'}: nobody but '{speakers[utterance]}' speaks, so nobody else can "
            f"babble; use --kind {WHITE}, or a set of several speakers"
        )
    draw = numpy.random.default_rng(words)
    return [str(o) for o in draw.choice(others, noise.talkers, replace=len(others) < noise.talkers)]


def _make(job: _Job) -> int:
    """Makes one recording and returns its number of samples."""
    samples, rate = read_audio(job.entry, job.place)
    speech = samples.astype(numpy.float64)
    noise = _white(len(speech), job.words) if not job.others else _babble(len(speech), rate, job)
    loud = mixed(speech, noise, job.noise.snr_db)
    loud *= min(1.0, (FULL_SCALE - 1) / max(numpy.abs(loud).max(), 1.0))
    write_audio(job.target, numpy.rint(loud).astype(numpy.int16), rate)
    return len(samples)


def _white(length: int, words: tuple[int, int]) -> numpy.ndarray:
    return numpy.random.default_rng(words).standard_normal(length)


def _babble(length: int, rate: int, job: _Job) -> numpy.ndarray:
    """The sum of others' speech, (length,)."""
    total = numpy.zeros(length)
    for place, entry in job.others.items():
        voice = read_audio(entry, place, rate)[0].astype(numpy.float64)
        voice /= max(numpy.sqrt(numpy.mean(voice**2)), 1e-6)
        total += numpy.resize(voice, length)
    return total
