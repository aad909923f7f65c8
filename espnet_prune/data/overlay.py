"""A file of which some bytes are read as others, or its end isn't read."""

import io
from collections.abc import Mapping
from typing import BinaryIO


class Overlay(io.RawIOBase):
    """A readable, seekable view of a file.

    Args:
        file: the file.
        patches: other bytes by their offset.
        size: length of the view in bytes; by default the file's.
    """

    def __init__(
        self, file: BinaryIO, patches: Mapping[int, bytes], size: int | None = None
    ) -> None:
        self.file = file
        self.patches = dict(patches)
        self.size = file.seek(0, io.SEEK_END) if size is None else size

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file of this size."""
        if whence == io.SEEK_END:
            offset, whence = self.size + offset, io.SEEK_SET
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """As of the file."""
        return self.file.tell()

    def readinto(self, buffer) -> int:
        """Fills a buffer from here on; returns the number of bytes."""
        begin = self.file.tell()
        content = bytearray(self.file.read(max(0, min(len(buffer), self.size - begin))))
        end = begin + len(content)
        for at, other in self.patches.items():
            first, last = max(at, begin), min(at + len(other), end)
            if first < last:
                content[first - begin : last - begin] = other[first - at : last - at]
        buffer[: len(content)] = content
        return len(content)
