"""What a file's own header says of its samples, checked against the file.

A header's sizes are told by whatever wrote it, which may not have known them, or not have come to
its end, or be another program than the one that went on. libsndfile believes them.
"""

from typing import BinaryIO

from espnet_prune.data import flat_headers, mp3_header
from espnet_prune.data.chunks import LAYOUTS, with_true_sizes
from espnet_prune.data.ogg_pages import MARK as OGG
from espnet_prune.data.ogg_pages import check_pages
from espnet_prune.data.overlay import Overlay

FLAC = b"fLaC"
# In the first block behind it: the number of samples, 36 bits, the first four in half a byte.
FLAC_TOTAL_AT, FLAC_TOTAL_BYTES = 21, 5
FORMS = (b"AIFF", b"AIFC")


def readable(file: BinaryIO, size: int) -> tuple[BinaryIO, int | None]:
    """The file as it can be read to its end.

    Args:
        file: a recording of any kind.
        size: length of it in bytes.

    Returns:
        The file, or a view of it that doesn't tell a size which may be wrong; and the number of
        samples that its header tells, where decoding has to be compared with it.

    Raises:
        ValueError: the header and the file disagree; says how.
    """
    start = mp3_header.id3_bytes(file)
    file.seek(start)
    if file.read(4) == FLAC:
        return _flac(file, start)
    file.seek(0)
    head = file.read(12)
    layout = LAYOUTS.get(head[:4])
    if head[:4] == b"FORM" and head[8:] not in FORMS:
        layout = None  # an Amiga's
    if layout is not None and size > layout.head_bytes:
        return with_true_sizes(file, size, layout), None
    if head.startswith(OGG):
        check_pages(file, size)
    elif head.startswith(flat_headers.SPHERE):
        return flat_headers.sphere_as_told(file, size), None
    elif head.startswith(flat_headers.AU):
        return flat_headers.au_with_true_size(file, size), None
    return file, None


def _flac(file: BinaryIO, start: int) -> tuple[BinaryIO, int | None]:
    """Read without its number of samples, at which libsndfile would stop."""
    at = start + FLAC_TOTAL_AT
    file.seek(at)
    content = file.read(FLAC_TOTAL_BYTES).ljust(FLAC_TOTAL_BYTES, b"\0")
    total = int.from_bytes(content, "big") & 0xFFFFFFFFF
    unknown = bytes([content[0] & 0xF0, 0, 0, 0, 0])
    return Overlay(file, {at: unknown}), total or None
