"""Containers of one header with all samples behind it: NIST SPHERE and Sun's AU.

libsndfile takes the number of SPHERE's samples from the file's size, so that what was cut is
shortened and what was joined is read with the second header as sound; of AU it reads as much as the
header says, however much there is.
"""

import re
import struct
from typing import BinaryIO

from espnet_prune.data.overlay import Overlay

SPHERE, AU = b"NIST_1A", b".snd"
FIELD = re.compile(rb"^(\w+) -(?:i|s\d+) (\d+)\s*$", re.MULTILINE)
SPHERE_HEAD = re.compile(rb"^NIST_1A\s+(\d{1,7})\s")
SPHERE_NEEDS = (b"sample_count", b"sample_n_bytes", b"channel_count")
AU_UNKNOWN = 0xFFFFFFFF
AU_SIZE_AT = 8


def sphere_as_told(file: BinaryIO, size: int) -> BinaryIO:
    """The file, or a view of it that ends with the samples that its header tells of.

    Args:
        file: the file.
        size: length of it in bytes.

    Raises:
        ValueError: the header's samples aren't those of the file.
    """
    file.seek(0)
    match = SPHERE_HEAD.match(file.read(32))
    if match is None:
        raise ValueError("its header doesn't say how long it is")
    first = int(match[1])
    file.seek(0)
    header = file.read(first)
    if b"shorten" in header:
        raise ValueError("its samples are compressed by shorten; write it anew by sph2pipe")
    told = {name: int(value) for name, value in FIELD.findall(header)}
    if any(name not in told for name in SPHERE_NEEDS):
        raise ValueError(f"its header lacks one of {b', '.join(SPHERE_NEEDS).decode()}")
    count, width, channels = (told[name] for name in SPHERE_NEEDS)
    if not count:  # written into a pipe, it may be left so
        return file
    end = first + count * width * channels
    _check_end(file, size, end)
    return Overlay(file, {}, end)


def au_with_true_size(file: BinaryIO, size: int) -> BinaryIO:
    """The file, or a view of it in which a size of 0 is that of what is there.

    Raises:
        ValueError: the header's samples aren't those of the file.
    """
    file.seek(4)
    first, told = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
    if told == 0 < size - first:
        return Overlay(file, {AU_SIZE_AT: struct.pack(">I", AU_UNKNOWN)})
    if told != AU_UNKNOWN:
        _check_end(file, size, first + told)
    return file


def _check_end(file: BinaryIO, size: int, told: int) -> None:
    if size < told:
        raise ValueError(f"it has {size} bytes, {told} by its header")
    file.seek(told)
    while content := file.read(1 << 16):
        if content.strip(b"\0"):
            raise ValueError(
                f"{size - told} bytes follow the {told} that its header tells of, perhaps of "
                "another recording"
            )
