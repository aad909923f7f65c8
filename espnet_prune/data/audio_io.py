"""The one place where audio and Kaldi archives are read and written.

A recording in ``wav.scp`` is a path to anything that libsndfile reads (WAV, FLAC, Ogg Opus, NIST
SPHERE), or ``archive.ark:offset``, both perhaps at another speed (``data.entry``). Pipes are
refused: they run commands out of a data file.

A WAV or FLAC that ends early is refused, and, once it is decoded, an MP3 whose Xing or Info header
tells its size. An MP3 without one, and files of other formats, are read up to where they end:
libsndfile doesn't tell.
"""

import io
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy
import soundfile
import soxr

from espnet_prune.data.entry import Entry
from espnet_prune.data.mp3_header import told_bytes
from espnet_prune.data.speed import perturb, perturbed_length
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import atomic_path

STREAMED_BYTES = 0x7FFFF000  # programs that write WAV into a pipe leave such a size, or 0
INTEGER_SUBTYPES = ("PCM_", "ALAC_")  # how they begin
FULL_SCALE = 32768  # of 16-bit samples: 1.0 in floating point
OGG_FULL_SCALE = 32767  # libsndfile's own where it makes integers of what Vorbis and Opus decode
OGG_SUBTYPES = ("VORBIS", "OPUS")


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
            f"{_named(entry, where)} is a pipe, which would run a command; convert the recording "
            "once (format_audio reads anything that libsndfile does) and give its path"
        )
    path = Entry(entry).path
    place = f"{where}: " if where else ""
    try:
        found = Path(path).is_file()
    except OSError as error:  # too long a name, or a folder that mayn't be searched
        raise DataError(
            f"{place}'{path}' can't be looked up ({error.strerror}); correct the path or its "
            "permissions, or leave it out"
        ) from error
    if not found:
        raise DataError(f"{place}there is no file '{path}'; correct the path or leave it out")


def _named(entry: str, where: str) -> str:
    """How an error begins: by the place and its entry, or by a path that was given itself."""
    return f"{where}: '{entry}'" if where else f"'{entry}'"


def read_audio(entry: str, where: str, sample_rate: int | None = None) -> tuple[numpy.ndarray, int]:
    """Reads one recording.

    Args:
        entry: the wav.scp entry.
        where: the file and utterance that errors name.
        sample_rate: expected rate in Hz; None takes any.

    Returns:
        Samples (samples,) as int16, and the rate in Hz.

    Raises:
        DataError: a pipe, a missing or damaged file, no samples, several channels, another rate.
    """
    parsed = Entry.parse(entry)
    samples, rate = _read(parsed.source, where)
    _check_mono(1 if samples.ndim == 1 else samples.shape[1], entry, where)
    if sample_rate is not None and rate != sample_rate:
        raise DataError(
            f"{_named(entry, where)} is sampled at {rate} Hz, {sample_rate} Hz was expected; "
            "resample it to that rate, or leave it out"
        )
    return perturb(samples, parsed.speed, rate), rate


def read_speech(entry: str, sample_rate: int) -> tuple[numpy.ndarray, int]:
    """Reads one recording of whatever rate and channels, which are averaged.

    Args:
        entry: a path, or a wav.scp entry.
        sample_rate: of the result, in Hz.

    Returns:
        Samples (samples,) as int16, and how many channels the recording has.

    Raises:
        DataError: a pipe, a missing or damaged file, no samples.
    """
    samples, rate = _read(entry, where="")
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    if samples.ndim > 1:
        samples = numpy.rint(samples.mean(axis=1, dtype=numpy.float32)).astype(numpy.int16)
    if rate != sample_rate:
        samples = soxr.resample(samples, rate, sample_rate)
    return samples, channels


def _read(entry: str, where: str) -> tuple[numpy.ndarray, int]:
    """Samples, (samples,) or (samples, channels), not none, as int16, and the rate in Hz."""
    check_entry(entry, where)
    try:
        if Entry(entry).is_archived:
            rate, samples = _read_archive(entry)
        else:
            _check_whole(Path(entry))
            rate, samples = _read_file(entry)
    except (soundfile.SoundFileError, OSError, ValueError, RuntimeError, EOFError) as error:
        raise _unreadable(entry, where, error) from error
    _check_samples(len(samples), entry, where)
    return samples, int(rate)


def audio_info(entry: str, where: str) -> tuple[int, int]:
    """Number of samples and rate of a recording, without decoding it where it is a file.

    Raises:
        DataError: as ``read_audio``.
    """
    parsed = Entry.parse(entry)
    if parsed.is_archived:
        samples, rate = read_audio(entry, where)
        return len(samples), rate
    check_entry(parsed.source, where)
    try:
        _check_whole(Path(parsed.source))
        info = soundfile.info(parsed.source)
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise _unreadable(entry, where, error) from error
    _check_samples(info.frames, entry, where)
    _check_mono(info.channels, entry, where)
    return perturbed_length(info.frames, parsed.speed), info.samplerate


def _check_samples(samples: int, entry: str, where: str) -> None:
    if samples == 0:
        raise DataError(f"{_named(entry, where)} holds no samples; leave it out")


def _check_mono(channels: int, entry: str, where: str) -> None:
    if channels != 1:
        raise DataError(
            f"{_named(entry, where)} has {channels} channels, 1 was expected; write it anew with "
            "one, as by `sox OLD NEW remix -`, which averages them, or leave it out"
        )


def _unreadable(entry: str, where: str, error: Exception) -> DataError:
    reason = str(getattr(error, "error_string", error)).rstrip(".")  # libsndfile's has no path
    return DataError(
        f"{_named(entry, where)} can't be read as audio ({reason}); it is damaged or of a format "
        "that libsndfile doesn't know: fetch or convert it again, or leave it out"
    )


def _read_file(path: str) -> tuple[int, numpy.ndarray]:
    """Reads a file; what isn't stored as integers is scaled and clipped here.

    libsndfile would cut floating-point samples to zeros, and turn the sign of what Vorbis and Opus
    decode above full scale. Within it these stay bit for bit as libsndfile has them.
    """
    # Opened here, since soundfile fails on a name that is not UTF-8.
    with open(path, "rb") as opened, soundfile.SoundFile(opened) as file:
        if file.subtype.startswith(INTEGER_SUBTYPES):
            return file.samplerate, file.read(dtype="int16")
        scale = OGG_FULL_SCALE if file.subtype in OGG_SUBTYPES else FULL_SCALE
        samples = file.read(dtype="float32")
        _check_decoded(Path(path), len(samples), file.frames)
        if not numpy.isfinite(samples).all():
            raise ValueError("a sample is not a finite number")
        scaled = numpy.round(samples * scale).clip(-FULL_SCALE, FULL_SCALE - 1)
        return file.samplerate, scaled.astype(numpy.int16)


def _read_archive(entry: str) -> tuple[int, numpy.ndarray]:
    value = _omniio().load_mat(entry)
    if not isinstance(value, tuple):
        raise ValueError("the archive holds a matrix there, not a recording")
    rate, samples = value
    if samples.dtype != numpy.int16:
        raise ValueError(f"the archive holds {samples.dtype} samples there, not 16-bit ones")
    return rate, samples


def _check_whole(path: Path) -> None:
    """ValueError for a WAV file that ends early, which libsndfile would silently shorten."""
    with path.open("rb") as file:
        head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF":
        return
    expected = struct.unpack("<I", head[4:8])[0] + 8
    size = path.stat().st_size
    if size < expected < STREAMED_BYTES:
        raise ValueError(f"it has {size} bytes, {expected} by its header")


def _check_decoded(path: Path, samples: int, frames: int) -> None:
    """ValueError for an MP3 that ends early; both its bytes and samples are fewer than told.

    Its number of samples alone may be a guess by its bit rate, its number of bytes with or without
    the tags that programs add.
    """
    if samples >= frames:
        return
    told, size = told_bytes(path), path.stat().st_size
    if told is not None and size < told:
        raise ValueError(
            f"it has {size} bytes and {samples} samples, {told} and {frames} by its header"
        )


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
