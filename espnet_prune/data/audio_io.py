"""The one place where audio and Kaldi archives are read and written.

A recording in ``wav.scp`` is a path to anything that libsndfile reads (WAV, FLAC, Ogg Opus, NIST
SPHERE), ``archive.ark:offset``, or, where that is allowed, a command that prints one; perhaps a
part of it, one channel, or at another speed (``data.entry``).

Every file is read to its end. What its header says otherwise is refused, or, where the samples are
all there, said by a note.
"""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy
import soundfile

from espnet_prune.data.archive import read_archive
from espnet_prune.data.decode import Decoded, as_value_errors, decode
from espnet_prune.data.entry import Entry
from espnet_prune.data.excerpt import AS_IT_IS, MEAN, Reading, taken
from espnet_prune.data.pipe import run_pipe
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import atomic_path


def check_entry(entry: str, where: str, pipes: bool = False) -> None:
    """DataError if the source of a wav.scp entry is a pipe that isn't allowed, or no file."""
    if entry.rstrip().endswith("|") or entry.lstrip().startswith("|"):
        if pipes:
            return
        raise DataError(
            f"{named(entry, where)} is a pipe, which would run a command; allow that "
            "(--pipes run, in stages 1 to 3), or convert the recording once and give its path"
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
        hidden = "" if path.isprintable() else f" (with all its characters: {ascii(path)})"
        raise DataError(
            f"{place}there is no file '{path}'{hidden}; correct the path or leave it out"
        )


def named(entry: str, where: str) -> str:
    """How an error begins: by the place and its entry, or by a path that was given itself."""
    return f"{where}: '{entry}'" if where else f"'{entry}'"


def read_audio(entry: str, where: str, sample_rate: int | None = None) -> tuple[numpy.ndarray, int]:
    """Reads one recording of one channel, that is no pipe.

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
            f"{named(entry, where)} is sampled at {found.rate} Hz, {sample_rate} Hz was expected; "
            "resample it to that rate, or leave it out"
        )
    return found.samples, found.rate


def examine(entry: str, where: str, reading: Reading = AS_IT_IS) -> Decoded:
    """Reads one recording, with what a user should know of it.

    Args:
        entry: the wav.scp entry.
        where: the file and utterance that errors name.
        reading: what is done to it.

    Returns:
        Samples (samples,) as int16.

    Raises:
        DataError: a pipe that isn't allowed or fails, a missing or damaged file, no samples,
            several channels of which none is chosen, a part that isn't there.
    """
    parsed = Entry.parse(entry)
    return taken(
        read_source(parsed.source, where, reading.pipes), parsed, named(entry, where), reading
    )


def read_speech(entry: str, sample_rate: int, channel: int | None = None) -> tuple[Decoded, int]:
    """Reads one recording of whatever rate and channels.

    Args:
        entry: a path, or a place in an archive.
        sample_rate: rate of the result, in Hz.
        channel: which one is taken, from 1; by default they are averaged.

    Returns:
        Samples (samples,) as int16 of that rate with what a user should know, and how many
        channels were averaged.

    Raises:
        DataError: a pipe, a missing or damaged file, no samples, no such channel, or channels that
            cancel each other.
    """
    whole = read_source(entry, where="")
    found = taken(whole, Entry(entry), named(entry, ""), Reading(sample_rate, channel or MEAN))
    return replace(found, notes=whole.notes), 1 if channel else whole.channels


def read_source(source: str, where: str, pipes: bool = False) -> Decoded:
    """All of a path, a place in an archive or a pipe, with all its channels.

    Raises:
        DataError: as ``examine``.
    """
    check_entry(source, where, pipes)
    try:
        printed = run_pipe(source) if Entry(source).is_pipe else None
    except ValueError as error:
        raise DataError(
            f"{named(source, where)} can't be run ({error}); correct the command, or convert the "
            "recording and give its path"
        ) from error
    try:
        with as_value_errors():
            if printed is not None:
                found = decode(printed)
            elif Entry(source).is_archived:
                found = read_archive(source)
            else:
                # Opened here, since soundfile fails on a name that is not UTF-8.
                with open(source, "rb") as file:
                    found = decode(file)
    except ValueError as error:
        raise DataError(
            f"{named(source, where)} can't be read as audio ({error}); fetch it again, "
            "convert it to what libsndfile reads, such as FLAC, or leave it out"
        ) from error
    if not len(found.samples):
        raise DataError(f"{named(source, where)} holds no samples; leave it out")
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
