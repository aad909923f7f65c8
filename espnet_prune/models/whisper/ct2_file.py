"""CTranslate2's ``model.bin`` (binary format 6), read into NumPy arrays.

Little-endian throughout: the version (uint32), the name of the specification, its revision and the
number of arrays (uint32 each); then for each array its name, rank (uint8), sizes (uint32 each),
type (uint8), bytes (uint32) and values; then aliases, pairs of names. A name is its length with
the closing NUL (uint16) and its characters.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy

from espnet_prune.errors import ModelError

VERSION = 6
TYPES = {0: numpy.float32, 1: numpy.int8, 2: numpy.int16, 3: numpy.int32, 4: numpy.float16}


@dataclass(frozen=True)
class Ct2File:
    """What a file holds.

    Attributes:
        specification: which kind of model, such as ``WhisperSpec``.
        arrays: by name; an alias names the same array.
    """

    specification: str
    arrays: dict[str, numpy.ndarray]


def read_ct2(path: Path) -> Ct2File:
    """Reads a ``model.bin``.

    Raises:
        ModelError: the file is missing, cut short, or of another version.
    """
    try:
        cursor = _Cursor(path.read_bytes())
        version = cursor.number("I")
        if version != VERSION:
            raise ModelError(
                f"{path}: binary version {version}, expected {VERSION}; convert the model again "
                "with a recent CTranslate2"
            )
        specification, _ = cursor.name(), cursor.number("I")
        arrays = dict(cursor.array() for _ in range(cursor.number("I")))
        for _ in range(cursor.number("I")):
            alias = cursor.name()
            arrays[alias] = arrays[cursor.name()]
    except (OSError, struct.error, ValueError, KeyError) as error:
        raise ModelError(f"{path}: can't be read as a CTranslate2 model ({error})") from error
    return Ct2File(specification, arrays)


class _Cursor:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from("<" + kind, self.content, self.place)
        self.place += struct.calcsize(kind)
        return value

    def take(self, size: int) -> bytes:
        start, self.place = self.place, self.place + size
        if self.place > len(self.content):
            raise ValueError(f"it ends after {len(self.content)} bytes; {self.place} are needed")
        return self.content[start : self.place]

    def name(self) -> str:
        return self.take(self.number("H"))[:-1].decode()

    def array(self) -> tuple[str, numpy.ndarray]:
        name = self.name()
        shape = [self.number("I") for _ in range(self.number("B"))]
        kind, size = self.number("B"), self.number("I")
        if kind not in TYPES:
            raise ValueError(f"{name} is of type {kind}, expected one of {list(TYPES)}")
        return name, numpy.frombuffer(self.take(size), TYPES[kind]).reshape(shape)
