"""The one place where audio and Kaldi archives are read and written.

A recording in ``wav.scp`` is a path to anything that libsndfile reads (WAV, FLAC, Ogg Opus, NIST
SPHERE), or ``archive.ark:offset``. Pipes are refused: they run commands out of a data file.
"""

import re
from pathlib import Path

import numpy
import soundfile

from espnet_prune.errors import DataError

ARCHIVE_ENTRY = re.compile(r"^.+\.ark:\d+$")


def _omniio():
    """The Kaldi archive reader: omniio, or kaldiio where only that is installed."""
    try:
        from omniio import kaldi
    except ImportError:
        import kaldiio as kaldi
    return kaldi


def check_entry(entry: str, where: str) -> None:
    """DataError if a wav.scp entry is a pipe or names no file."""
    if entry.rstrip().endswith("|") or entry.lstrip().startswith("|"):
        raise DataError(
            f"{where}: '{entry}' is a pipe, which would run a command; convert the recording once "
            "(format_audio reads anything that libsndfile does) and give its path"
        )
    path = entry.rsplit(":", 1)[0] if ARCHIVE_ENTRY.match(entry) else entry
    if not Path(path).is_file():
        raise DataError(f"{where}: there is no file '{path}'; correct the path or drop the entry")


def read_audio(entry: str, where: str, sample_rate: int | None = None) -> tuple[numpy.ndarray, int]:
    """Reads one recording.

    Args:
        entry: the wav.scp entry.
        where: the file and utterance that errors name.
        sample_rate: expected rate in Hz; None takes any.

    Returns:
        int16 samples (samples,), and the rate in Hz.

    Raises:
        DataError: a pipe, a missing or damaged file, no samples, several channels, another rate.
    """
    check_entry(entry, where)
    try:
        if ARCHIVE_ENTRY.match(entry):
            rate, samples = _omniio().load_mat(entry)
        else:
            samples, rate = soundfile.read(entry, dtype="int16")
    except (soundfile.SoundFileError, OSError, ValueError, RuntimeError, EOFError) as error:
        raise DataError(
            f"{where}: '{entry}' can't be read as audio ({error}); it is damaged or of a format "
            "that libsndfile doesn't know"
        ) from error
    if samples.ndim != 1:
        raise DataError(f"{where}: '{entry}' has {samples.shape[1]} channels, 1 was expected")
    if len(samples) == 0:
        raise DataError(f"{where}: '{entry}' holds no samples; drop the utterance")
    if sample_rate is not None and rate != sample_rate:
        raise DataError(
            f"{where}: '{entry}' is sampled at {rate} Hz, {sample_rate} Hz was expected; "
            "resample it, or give the right --sample_rate"
        )
    return samples, int(rate)


def audio_info(entry: str, where: str) -> tuple[int, int]:
    """Number of samples and rate of a recording, without decoding it where it is a file.

    Raises:
        DataError: as ``read_audio``.
    """
    if ARCHIVE_ENTRY.match(entry):
        samples, rate = read_audio(entry, where)
        return len(samples), rate
    check_entry(entry, where)
    try:
        info = soundfile.info(entry)
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{where}: '{entry}' can't be read as audio ({error})") from error
    if info.frames == 0:
        raise DataError(f"{where}: '{entry}' holds no samples; drop the utterance")
    if info.channels != 1:
        raise DataError(f"{where}: '{entry}' has {info.channels} channels, 1 was expected")
    return info.frames, info.samplerate


def read_headerless(path: Path, sample_rate: int, byte_order: str = ">") -> numpy.ndarray:
    """Reads headerless 16-bit samples (AN4's ``.raw`` files are big-endian), as int16."""
    return numpy.fromfile(path, dtype=f"{byte_order}i2").astype(numpy.int16)


def write_flac(path: Path, samples: numpy.ndarray, sample_rate: int) -> None:
    """Writes int16 samples as 16-bit FLAC; the caller makes it atomic."""
    soundfile.write(path, samples, sample_rate, format="FLAC", subtype="PCM_16")


def write_archive(path: Path, recordings: dict[str, numpy.ndarray], sample_rate: int) -> None:
    """Writes int16 samples by utterance into a Kaldi archive; offsets by ``archive_offsets``."""
    kaldi = _omniio()
    with kaldi.WriteHelper(f"ark,scp:{path},{path}.scp") as writer:
        for utterance, samples in recordings.items():
            writer(utterance, (sample_rate, samples))
