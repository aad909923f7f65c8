"""Containers made of chunks: WAV with its 64-bit forms, AIFF and CAF.

Each chunk is a name, a size and so many bytes; one of them holds the samples. libsndfile reads as
many samples as that size says: a size that was never brought up to date loses the rest, and one of
a file that was cut is shortened, both without a word. So the chunks are walked here to the file's
end, where they have to meet. Programs that write into a pipe don't know sizes; they leave 0 or a
placeholder, and the samples go on to the end.

Sources: Microsoft's "Multimedia Programming Interface and Data Specifications 1.0" (RIFF), EBU Tech
3306 (RF64), Sony's "Wave64", Apple's AIFF-C and Core Audio Format specifications.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from espnet_prune.data.overlay import Overlay

# Where a 32-bit size is no size: what sox, ffmpeg and others leave in a pipe's header.
PLACEHOLDERS = (range(0x7FFFF000, 0x80001000), range(0xFFFFF000, 0x100000000))
OTHER_RECORDINGS = (
    *(b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b"caff"),
    *(b"fLaC", b"OggS", b"NIST", b".snd"),
)
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # which players put behind any file
DS64, DS64_BYTES = b"ds64", 16  # sizes of the whole and of the samples


@dataclass(frozen=True)
class Layout:
    """How one kind of container writes its chunks.

    Attributes:
        head_bytes: before the first chunk.
        total_at: where the size of all that follows stands; None where there is none.
        total_counts: bytes that this size leaves out.
        name_bytes: length of a chunk's name.
        size: format of a size, as ``struct`` has it.
        size_counts_head: whether a size counts name and size, too.
        align: chunks begin at multiples of it.
        samples: how the name of the samples' chunk begins.
        reads_on: whether libsndfile reads what follows that chunk as samples.
    """

    head_bytes: int
    total_at: int | None
    total_counts: int
    name_bytes: int
    size: str
    size_counts_head: bool
    align: int
    samples: bytes
    reads_on: bool = False


RIFF = Layout(12, 4, 8, 4, "<I", False, 2, b"data")
LAYOUTS = {
    b"RIFF": RIFF,
    b"RF64": RIFF,
    b"BW64": RIFF,
    b"RIFX": Layout(12, 4, 8, 4, ">I", False, 2, b"data"),
    b"FORM": Layout(12, 4, 8, 4, ">I", False, 2, b"SSND"),
    b"riff": Layout(40, 16, 0, 16, "<Q", True, 8, b"data", reads_on=True),  # Wave64
    b"caff": Layout(8, None, 0, 4, ">q", False, 1, b"data"),
}


@dataclass(frozen=True)
class Chunk:
    """One chunk.

    Attributes:
        name: its first four bytes.
        at: where it begins.
        first: where its content begins.
        end: where its content ends.
        placeholder: whether its size stands for all that follows.
    """

    name: bytes
    at: int
    first: int
    end: int
    placeholder: bool


def with_true_sizes(file: BinaryIO, size: int, layout: Layout) -> BinaryIO:
    """The file, or a view of it with the true sizes of a stream, or that ends with the samples.

    Args:
        file: the container.
        size: length of the file in bytes.
        layout: how its kind lays out chunks.

    Raises:
        ValueError: the chunks don't end where the file does; says which of them and where.
    """
    found = list(_chunks(file, size, layout))
    samples = [chunk for chunk in found if chunk.name == layout.samples]
    if len(samples) > 1:
        raise ValueError(f"it has {len(samples)} chunks of samples, of which one would be read")
    if not samples:
        raise ValueError(f"it has no chunk '{layout.samples.decode()}', which would hold samples")
    chunk = samples[0]
    if not chunk.placeholder:
        _check_total(file, size, layout)
        return Overlay(file, {}, chunk.end) if layout.reads_on else file
    head = chunk.first - chunk.at if layout.size_counts_head else 0
    patches = {chunk.at + layout.name_bytes: _packed(layout, size - chunk.first + head)}
    if layout.total_at is not None:
        patches[layout.total_at] = _packed(layout, size - layout.total_counts)
    return Overlay(file, patches)


def _packed(layout: Layout, value: int) -> bytes:
    try:
        return struct.pack(layout.size, value)
    except struct.error as error:
        raise ValueError(
            f"its header doesn't say how long it is, and {value} bytes are more than it could"
        ) from error


def _check_total(file: BinaryIO, size: int, layout: Layout) -> None:
    if layout.total_at is None:
        return
    file.seek(layout.total_at)
    told = _number(file, layout)
    if _is_placeholder(told, layout) or told == 0:
        return
    if told + layout.total_counts > size:
        raise ValueError(f"it has {size} bytes, {told + layout.total_counts} by its header")


def _chunks(file: BinaryIO, size: int, layout: Layout) -> Iterator[Chunk]:
    head = layout.name_bytes + struct.calcsize(layout.size)
    at, long_size, last = layout.head_bytes, None, None
    while size - at >= head:
        file.seek(at)
        name = file.read(layout.name_bytes)[:4]
        if not _is_name(name) or name[:3] in TAGS or name in OTHER_RECORDINGS:
            _check_rest(file, at, size, last)
            return
        told = _number(file, layout)
        first = at + head
        if name == DS64 and size - first >= DS64_BYTES:
            long_size = struct.unpack("<QQ", file.read(DS64_BYTES))[1]
        length = told - head if layout.size_counts_head else told
        if name == layout.samples and long_size is not None and told == 0xFFFFFFFF:
            length, told = long_size, long_size
        placeholder = name == layout.samples and (
            _is_placeholder(told, layout) or (told == 0 and not _goes_on(file, first, size, layout))
        )
        end = size if placeholder else first + length
        if end > size or length < 0 and not placeholder:
            raise ValueError(f"it has {size} bytes, {end} by its header")
        last = Chunk(name, at, first, end, placeholder)
        yield last
        at = _next(file, end, size, layout)
    if at < size:
        _check_rest(file, at, size, last)


def _next(file: BinaryIO, end: int, size: int, layout: Layout) -> int:
    """Where the next chunk begins; some programs leave out the byte that makes an offset even."""
    aligned = end + -end % layout.align
    file.seek(end)
    if aligned != end and size - end >= 4:
        following = file.read(5)
        if _is_name(following[:4]) and not following.startswith(b"\0"):
            return end
    return aligned


def _goes_on(file: BinaryIO, at: int, size: int, layout: Layout) -> bool:
    """Whether an empty chunk of samples is really one: chunks follow, or nothing does."""
    file.seek(at)
    name = file.read(4)
    return at >= size or (_is_name(name) and name not in OTHER_RECORDINGS)


def _check_rest(file: BinaryIO, at: int, size: int, last: Chunk | None) -> None:
    """ValueError for what follows the last chunk, unless it is zeros or a player's tag."""
    file.seek(at)
    begin = file.read(12)
    if begin.startswith(TAGS):
        return
    if begin.startswith(OTHER_RECORDINGS):
        raise ValueError(f"another recording follows it at byte {at}, which would not be read")
    while begin:
        if begin.strip(b"\0"):
            said = f"{last.end - last.first} bytes in '{last.name.decode()}'" if last else "nothing"
            raise ValueError(
                f"{size - at} bytes follow that its header doesn't tell of (the last it tells of: "
                f"{said})"
            )
        begin = file.read(1 << 16)


def _number(file: BinaryIO, layout: Layout) -> int:
    content = file.read(struct.calcsize(layout.size))
    return struct.unpack(layout.size, content)[0]


def _is_placeholder(told: int, layout: Layout) -> bool:
    if struct.calcsize(layout.size) > 4:
        return told < 0 or told == 2**64 - 1
    return any(told in values for values in PLACEHOLDERS)


def _is_name(name: bytes) -> bool:
    """Whether this could be a chunk's name: printable."""
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)
