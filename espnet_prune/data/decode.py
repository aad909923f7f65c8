"""Samples of a file, read to its end whatever its header says."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy
import soundfile

from espnet_prune.data.container import readable
from espnet_prune.data.mp3_header import check_mp3

INTEGER_SUBTYPES = ("PCM_", "ALAC_")  # how they begin
FULL_SCALE = 32768  # of 16-bit samples: 1.0 in floating point
OGG_FULL_SCALE = 32767  # libsndfile's own where it makes integers of what Vorbis and Opus decode
OGG_SUBTYPES = ("VORBIS", "OPUS")
BLOCK = 1 << 16  # samples read at once, of all channels
RATES = range(1000, 1_000_001)  # in Hz, that a recording may have; others are of a damaged header
UNKNOWN = 1 << 62  # libsndfile tells a number beyond where it doesn't know one
# Ours: lossy formats overshoot full scale by less than 1.5 times; no mixing desk reaches 4 times.
LOUD, FAR_TOO_LOUD = 1.5, 4.0
CLIPPED_SHARE = 0.001
UNCHECKED = "its format, {}, has no size that is checked: whether it is whole isn't known"
SILENT = "its samples vary by no more than two steps of 16 bits: silence, or scaled far too quiet"
# What downloads leave in place of a recording, by how it begins.
INSTEAD_OF_AUDIO = {
    b"version https://git-lfs": "a pointer of Git LFS, which `git lfs pull` replaces by the file",
    b"/annex/objects/": "a pointer of git-annex, which `git annex get` replaces by the file",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}
CHECKED = {"WAV", "WAVEX", "RF64", "AIFF", "W64", "CAF", "FLAC", "OGG", "MP3", "NIST", "AU", "HTK"}


@dataclass(frozen=True)
class Decoded:
    """A recording.

    Attributes:
        samples: (samples,) or (samples, channels), int16.
        rate: in Hz.
        notes: what a user should know of it, each without the file's name.
        rate_before: in Hz, before it was resampled.
    """

    samples: numpy.ndarray
    rate: int
    notes: tuple[str, ...] = ()
    rate_before: int = 0

    @property
    def channels(self) -> int:
        """How many it has."""
        return 1 if self.samples.ndim == 1 else self.samples.shape[1]


class _Forward(soundfile.SoundFile):
    """Read from its beginning to its end: libsndfile can't seek in every format."""

    def seekable(self) -> bool:
        return False


def decode(file: BinaryIO) -> Decoded:
    """Reads a file of any format that libsndfile knows.

    What isn't stored as integers is scaled and clipped here: libsndfile would cut floating-point
    samples to zeros, and turn the sign of what Vorbis and Opus decode above full scale. Within it
    these stay bit for bit as libsndfile has them.

    Args:
        file: readable and seekable.

    Raises:
        ValueError: it isn't audio; the header and the data disagree; a sample is no number, or far
            beyond full scale.
        soundfile.SoundFileError: libsndfile can't read it.
    """
    file.seek(0)
    start = file.read(max(map(len, INSTEAD_OF_AUDIO))).lower()
    for mark, meaning in INSTEAD_OF_AUDIO.items():
        if start.startswith(mark):
            raise ValueError(f"it is {meaning}")
    size = file.seek(0, io.SEEK_END)
    view, told = readable(file, size)
    view.seek(0)
    with _Forward(view) as sound:
        rate, kind, frames = sound.samplerate, sound.format, sound.frames
        if rate not in RATES:
            raise ValueError(f"it is sampled at {rate} Hz by its header")
        samples, level = _read(sound)
    notes = [*level.notes(samples.size)]
    if kind == "MP3":
        notes += check_mp3(file, size, len(samples), frames)
    elif told is None and frames < UNKNOWN:
        told = frames
    if told is not None and kind != "MP3" and len(samples) != told:
        raise ValueError(f"it holds {len(samples)} samples, {told} by its header")
    if kind not in CHECKED:
        notes.append(UNCHECKED.format(kind))
    if samples.size and int(samples.max()) - int(samples.min()) <= 2:
        notes.append(SILENT)
    return Decoded(samples, rate, tuple(notes))


def format_of(file: BinaryIO) -> str:
    """libsndfile's name of a file's format.

    Raises:
        soundfile.SoundFileError: it is none that libsndfile reads.
    """
    with _Forward(file) as sound:
        return sound.format


class _Level:
    """How far floating-point samples reach beyond full scale."""

    def __init__(self) -> None:
        self.peak = 0.0
        self.clipped = 0

    def add(self, samples: numpy.ndarray) -> None:
        """ValueError for samples that are no numbers."""
        if not numpy.isfinite(samples).all():
            raise ValueError("a sample is not a finite number")
        if samples.size:
            self.peak = max(self.peak, float(abs(samples).max()))
            self.clipped += int((abs(samples) > 1).sum())

    def notes(self, samples: int) -> Iterator[str]:
        """ValueError for samples that clipping would make noise of."""
        if self.peak > FAR_TOO_LOUD:
            raise ValueError(
                f"its samples reach {self.peak:.4g}, where full scale is 1: they are scaled "
                "otherwise, perhaps as integers; divide them, as by `sox --norm OLD NEW`"
            )
        if self.peak > LOUD and self.clipped > CLIPPED_SHARE * samples:
            yield (
                f"{100 * self.clipped / samples:.1f}% of its samples are beyond full scale and are "
                f"clipped, the loudest is {self.peak:.3g}; make it quieter, as by `sox --norm`"
            )


def _read(sound: soundfile.SoundFile) -> tuple[numpy.ndarray, _Level]:
    """All samples as int16, and how loud they were."""
    integers = sound.subtype.startswith(INTEGER_SUBTYPES)
    scale = OGG_FULL_SCALE if sound.subtype in OGG_SUBTYPES else FULL_SCALE
    shape = (0,) if sound.channels == 1 else (0, sound.channels)
    blocks, level = [numpy.zeros(shape, numpy.int16)], _Level()
    size = max(1, BLOCK // sound.channels)
    while True:
        block = sound.read(size, dtype="int16" if integers else "float32")
        if not len(block):
            return numpy.concatenate(blocks), level
        if not integers:
            level.add(block)
            block = numpy.round(block * scale).clip(-FULL_SCALE, FULL_SCALE - 1)
        blocks.append(block.astype(numpy.int16))


@contextlib.contextmanager
def as_value_errors() -> Iterator[None]:
    """Whatever reading a damaged file may raise, as a ValueError with a reason."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise ValueError(error.error_string.rstrip(".")) from error  # without the file's name
    except (soundfile.SoundFileError, OSError, RuntimeError, EOFError) as error:
        raise ValueError(str(error).rstrip(".")) from error
