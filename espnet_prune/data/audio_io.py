"""The one place where audio and Kaldi archives are read and written.

A recording in ``wav.scp`` is a path to anything that libsndfile reads (WAV, FLAC, Ogg Opus, NIST
SPHERE), or ``archive.ark:offset``, both perhaps at another speed (``data.entry``). Pipes are
refused: they run commands out of a data file.

Every file is read to its end. What its header says otherwise is refused, or, where the samples are
all there, said by a note.
"""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy
import soundfile
import soxr

from espnet_prune.data.archive import read_archive
from espnet_prune.data.decode import Decoded, as_value_errors, decode
from espnet_prune.data.entry import Entry
from espnet_prune.data.speed import perturb
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import atomic_path

CANCELLED = 0.1  # of the channels' level; that of independent ones is 1 / sqrt(channels) (ours)


def check_entry(entry: str, where: str) -> None:
    """DataError if a wav.scp entry is a pipe or names no file."""
    if entry.rstrip().endswith("|") or entry.lstrip().startswith("|"):
        raise DataError(
            f"{_named(entry, where)} is a pipe, which would run a command; convert the recording "
            "once (format_audio reads anything that libsndfile does) and give its path"
        )
    path = Entry(entry).path
    place = f"{where}: " if where else ""
    try:
        found = Path(path).is_file()
    except (OSError, ValueError) as error:  # too long a name, a NUL, a folder not to be searched
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{place}'{path}' can't be looked up ({reason}); correct the path or its "
            "permissions, or leave it out"
        ) from error
    if not found:
        raise DataError(f"{place}there is no file '{path}'; correct the path or leave it out")


def _named(entry: str, where: str) -> str:
    """How an error begins: by the place and its entry, or by a path that was given itself."""
    return f"{where}: '{entry}'" if where else f"'{entry}'"


def read_audio(entry: str, where: str, sample_rate: int | None = None) -> tuple[numpy.ndarray, int]:
    """Reads one recording of one channel.

    Args:
        entry: the wav.scp entry.
        where: the file and utterance that errors name.
        sample_rate: expected rate in Hz; None takes any.

    Returns:
        Samples (samples,) as int16, and the rate in Hz.

    Raises:
        DataError: as ``examine``; another rate.
    """
    found = examine(entry, where)
    if sample_rate is not None and found.rate != sample_rate:
        raise DataError(
            f"{_named(entry, where)} is sampled at {found.rate} Hz, {sample_rate} Hz was expected; "
            "resample it to that rate, or leave it out"
        )
    return found.samples, found.rate


def examine(entry: str, where: str) -> Decoded:
    """The same with what a user should know of the recording.

    Raises:
        DataError: a pipe, a missing or damaged file, no samples, several channels.
    """
    parsed = Entry.parse(entry)
    found = _read(parsed.source, where)
    if found.channels != 1:
        raise DataError(
            f"{_named(entry, where)} has {found.channels} channels, 1 was expected; write it anew "
            "with one, as by `sox OLD NEW remix -`, which averages them, or leave it out"
        )
    return replace(found, samples=perturb(found.samples, parsed.speed, found.rate))


def read_speech(entry: str, sample_rate: int, channel: int | None = None) -> tuple[Decoded, int]:
    """Reads one recording of whatever rate and channels.

    Args:
        entry: a path, or a place in an archive.
        sample_rate: of the result, in Hz.
        channel: which one is taken, from 1; by default they are averaged.

    Returns:
        Samples (samples,) as int16 of that rate with what a user should know, and how many
        channels were averaged.

    Raises:
        DataError: a pipe, a missing or damaged file, no samples, no such channel, or channels that
            cancel each other.
    """
    found = _read(entry, where="")
    samples = found.samples
    if channel is not None and channel > found.channels:
        raise DataError(
            f"'{entry}' has {found.channels} channels, so there is no channel {channel}; give one "
            "of them, or leave it out"
        )
    averaged = 1 if channel else found.channels
    if samples.ndim > 1:
        samples = samples[:, channel - 1] if channel else _mean(samples, entry)
    if found.rate != sample_rate:
        samples = soxr.resample(samples, found.rate, sample_rate)
    return Decoded(samples, sample_rate, found.notes), averaged


def _mean(samples: numpy.ndarray, entry: str) -> numpy.ndarray:
    """The channels' mean (samples,) of (samples, channels)."""
    mean = samples.mean(axis=1, dtype=numpy.float32)
    level = numpy.sqrt(numpy.square(samples, dtype=numpy.float64).mean())
    if numpy.sqrt(numpy.square(mean, dtype=numpy.float64).mean()) < CANCELLED * level:
        raise DataError(
            f"'{entry}': its {samples.shape[1]} channels cancel each other: their mean is nearly "
            "silent; take one of them (--channel 1), or leave it out"
        )
    return numpy.rint(mean).astype(numpy.int16)


def _read(entry: str, where: str) -> Decoded:
    """A recording that has samples."""
    check_entry(entry, where)
    try:
        with as_value_errors():
            if Entry(entry).is_archived:
                found = read_archive(entry)
            else:
                # Opened here, since soundfile fails on a name that is not UTF-8.
                with open(entry, "rb") as file:
                    found = decode(file)
    except ValueError as error:
        raise DataError(
            f"{_named(entry, where)} can't be read as audio ({error}); it is damaged or of a "
            "format that libsndfile doesn't know: fetch or convert it again, or leave it out"
        ) from error
    if not len(found.samples):
        raise DataError(f"{_named(entry, where)} holds no samples; leave it out")
    return found


def read_headerless(path: Path) -> numpy.ndarray:
    """Reads headerless 16-bit samples as int16, in the byte order that makes them smoother.

    AN4's ``.raw`` files come in either order. Speech changes little from sample to sample; with
    its bytes swapped it is nearly white noise.

    Raises:
        DataError: no samples, or half a sample at the end.
    """
    content = path.read_bytes()
    if not content or len(content) % 2:
        raise DataError(
            f"{path}: {len(content)} bytes can't be headerless 16-bit samples; fetch it again"
        )
    orders = [numpy.frombuffer(content, dtype).astype(numpy.int16) for dtype in (">i2", "<i2")]
    return min(orders, key=lambda samples: numpy.abs(numpy.diff(samples.astype(float))).sum())


def _encode(samples: numpy.ndarray, sample_rate: int, kind: str) -> bytes:
    """A file's content, made in memory: libsndfile would turn a full disk into a nameless error."""
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, sample_rate, format=kind, subtype="PCM_16")
    return encoded.getvalue()


def write_audio(path: Path, samples: numpy.ndarray, sample_rate: int) -> None:
    """Writes int16 samples as 16-bit WAV or FLAC, by the path's suffix, atomically."""
    content = _encode(samples, sample_rate, path.suffix[1:].upper())
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_archive(
    path: Path, recordings: Mapping[str, numpy.ndarray], sample_rate: int
) -> dict[str, str]:
    """Writes int16 samples by utterance into a Kaldi archive, atomically.

    Returns:
        The wav.scp entry by utterance.
    """
    entries = {}
    with atomic_path(path) as temporary:
        with temporary.open("wb") as archive:
            for utterance, samples in recordings.items():
                archive.write(f"{utterance} ".encode())
                entries[utterance] = f"{path}:{archive.tell()}"
                archive.write(_encode(samples, sample_rate, "WAV"))
    return entries
