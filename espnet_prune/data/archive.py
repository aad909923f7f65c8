"""Recordings in Kaldi's archives.

A record of audio is a whole WAV file or, as ESPnet writes it, "AUDIO", a length and a file of any
kind; both are cut out here and read like files. Whatever else stands there is told by omniio, or
by kaldiio where only that is installed.
"""

import io
import struct
from typing import BinaryIO

from espnet_prune.data.decode import Decoded, decode

RIFF, RIFF_HEAD_BYTES = b"RIFF", 8
AUDIO = b"AUDIO"


def _omniio():
    """The Kaldi archive reader: omniio, or kaldiio where only that is installed."""
    try:
        from omniio import kaldi
    except ImportError:
        import kaldiio as kaldi
    return kaldi


def read_archive(entry: str) -> Decoded:
    """Reads the recording at ``archive.ark:offset``.

    Raises:
        ValueError: no recording is there, or it ends early; and as ``decode``.
        soundfile.SoundFileError: libsndfile can't read it.
    """
    path, _, offset = entry.rpartition(":")
    with open(path, "rb") as file:
        file.seek(int(offset))
        mark = file.read(len(AUDIO))
        if mark.startswith(RIFF):
            file.seek(int(offset))
            head = file.read(RIFF_HEAD_BYTES)
            return decode(_record(head, file, struct.unpack("<4xI", head)[0]))
        if mark == AUDIO:
            width = file.read(1)
            length = int.from_bytes(file.read(width[0] if width else 0), "little")
            return decode(_record(b"", file, length))
    value = _omniio().load_mat(entry)
    shape = getattr(value, "shape", "?")
    raise ValueError(f"the archive holds a matrix there, not a recording; its shape is {shape}")


def _record(head: bytes, file: BinaryIO, length: int) -> BinaryIO:
    content = file.read(length)
    if len(content) < length:
        raise ValueError(
            f"the archive ends after {len(content)} bytes of its record, which has {length} by its "
            "header"
        )
    return io.BytesIO(head + content)
