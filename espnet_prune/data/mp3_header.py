"""What the first frame of an MP3 tells of the whole, where its encoder wrote such a one.

In place of sound LAME and others write "Xing" (variable bit rate) or "Info" (constant), flags and,
as they say, the number of frames and of bytes (http://gabriel.mp3-tech.org/mp3infotag.html). An
ID3v2 tag may stand before it (https://id3.org/id3v2.3.0), an ID3v1 or APE tag behind all.
"""

import re
import struct
from typing import BinaryIO

from espnet_prune.data.mp3_frames import ENDS_WITHIN, ends_within_a_frame

ID3, ID3_BYTES = b"ID3", 10  # of its head, which ends with the size of the rest
ID3_SHIFTS = (21, 14, 7, 0)  # that size has 7 bits a byte
# a frame's head of layer III, which ends where the side information of one or two channels does
HEADER = re.compile(rb"\xff[\xe2-\xff].{11,36}?(?:Xing|Info)(.{4})(.{8})", re.DOTALL)
HEADER_BYTES = 64  # in which all of it stands
HAS_FRAMES, HAS_BYTES = 1, 2
OLD_TAG, OLD_TAG_BYTES = b"TAG", 128
APE, APE_BYTES, APE_HAS_HEAD = b"APETAGEX", 32, 1 << 31
LARGEST_FRAME = 2881  # bytes, of any layer; encoders differ by one in what they count


def id3_bytes(file: BinaryIO) -> int:
    """Size of the tag that a file begins with; 0 where there is none."""
    file.seek(0)
    head = file.read(ID3_BYTES)
    if len(head) < ID3_BYTES or not head.startswith(ID3):
        return 0
    parts = zip(head[-len(ID3_SHIFTS) :], ID3_SHIFTS, strict=True)
    return ID3_BYTES + sum(byte << shift for byte, shift in parts)


def told_bytes(file: BinaryIO) -> int | None:
    """Size of the file by its header; None if it has no header that tells."""
    tag = id3_bytes(file)
    file.seek(tag)
    found = HEADER.match(file.read(HEADER_BYTES))
    flags = int.from_bytes(found[1], "big") if found else 0
    if found is None or not flags & HAS_BYTES:
        return None
    start = 4 if flags & HAS_FRAMES else 0
    return tag + int.from_bytes(found[2][start : start + 4], "big")


def check_mp3(file: BinaryIO, size: int, samples: int, told_samples: int) -> list[str]:
    """Makes sure that an MP3 is as long as its header says, if it says.

    The number of samples alone may be a guess by the bit rate, the number of bytes with or without
    the tags that programs add.

    Args:
        file: the file.
        size: length of it in bytes.
        samples: that were decoded.
        told_samples: by the decoder.

    Returns:
        What a user should know.

    Raises:
        ValueError: it ends early, or another recording follows, which wasn't decoded.
    """
    told, tags = told_bytes(file), _tags_behind(file, size)
    if told is None:
        cut = ends_within_a_frame(file, id3_bytes(file), size - tags)
        return [ENDS_WITHIN] if cut else []
    if samples < told_samples and size < told:
        raise ValueError(
            f"it has {size} bytes and {samples} samples, {told} and {told_samples} by its header"
        )
    behind = size - tags - told
    if behind > LARGEST_FRAME:
        raise ValueError(
            f"{behind} bytes follow the {told} that its header tells of, perhaps of another "
            "recording"
        )
    return []


def _tags_behind(file: BinaryIO, size: int) -> int:
    """Size of the tags at the end."""
    tags = 0
    if size >= OLD_TAG_BYTES:
        file.seek(size - OLD_TAG_BYTES)
        tags += OLD_TAG_BYTES * file.read(len(OLD_TAG)).startswith(OLD_TAG)
    if size - tags >= APE_BYTES:
        file.seek(size - tags - APE_BYTES)
        mark, _, length, _, flags = struct.unpack("<8sIIII8x", file.read(APE_BYTES))
        if mark == APE:
            tags += length + APE_BYTES * bool(flags & APE_HAS_HEAD)
    return tags
