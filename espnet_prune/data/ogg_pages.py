"""Ogg's pages, walked to the file's end: whether all are there, and of one recording.

libsndfile reads the first of several recordings that were joined, and what is left of a file that
was cut, without a word. A page says whether it begins or ends its stream and its number in it
(RFC 3533).
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

MARK, HEAD_BYTES = b"OggS", 27
BEGINS, ENDS = 2, 4  # bits of a page's flags


@dataclass
class _Stream:
    number: int  # of its last page
    ended: bool


def check_pages(file: BinaryIO, size: int) -> None:
    """Makes sure that the file is one whole recording.

    Args:
        file: the file.
        size: length of it in bytes.

    Raises:
        ValueError: a page is cut or missing, a stream isn't ended, or another recording follows.
    """
    streams: dict[int, _Stream] = {}
    at, began = 0, False  # whether pages that begin no stream have been seen
    while at < size:
        file.seek(at)
        head = file.read(HEAD_BYTES)
        if not head.startswith(MARK):
            if not (head + file.read()).strip(b"\0"):
                break
            raise ValueError(f"{size - at} bytes from byte {at} on are no page of Ogg")
        sizes = file.read(head[-1]) if len(head) == HEAD_BYTES else b""
        end = at + len(head) + len(sizes) + sum(sizes)
        if len(head) < HEAD_BYTES or len(sizes) < head[-1] or end > size:
            raise ValueError(f"it ends within a page, which began at byte {at}")
        flags = head[5]
        serial, number = struct.unpack("<II", head[14:22])
        if flags & BEGINS:
            if began:
                raise ValueError(
                    f"another recording follows it at byte {at}, which would not be read"
                )
        else:
            began = True
            if serial not in streams or number != streams[serial].number + 1:
                raise ValueError(f"a page is missing before byte {at}")
        streams[serial] = _Stream(number, bool(flags & ENDS))
        at = end
    if not all(stream.ended for stream in streams.values()):
        raise ValueError("its last page isn't marked as the last: it was cut, or never finished")
