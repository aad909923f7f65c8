"""What a line of ``wav.scp`` may say about an utterance's samples.

Kaldi's own: a path, ``archive.ark:offset``, or a command that ends in ``|`` and prints a recording.
Ours: ``speed:FACTOR:`` before one of them plays it FACTOR times as fast. Samples are changed when
they are read, so that no copies are kept, and a program that doesn't know such a line fails on it
instead of reading the wrong samples.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

ARCHIVE_ENTRY = re.compile(r"^.+\.ark:\d+$")
NUMBER = r"\d+(?:\.\d+)?"
SPEED = re.compile(rf"^speed:(?P<speed>{NUMBER}):(?P<rest>.+)$", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """Where an utterance's samples come from, and what is done to them.

    Attributes:
        source: a path, or ``archive.ark:offset``.
        speed: how many times as fast they are played.
    """

    source: str
    speed: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Entry":
        """Reads the value of a line."""
        match = SPEED.match(text)
        if match is None:
            return cls(text)
        return cls(match["rest"], float(match["speed"]))

    def __str__(self) -> str:
        """The value of a line; what ``parse`` reads."""
        return f"speed:{self.speed!r}:{self.source}" if self.speed != 1 else self.source

    @property
    def path(self) -> str:
        """The file that holds the samples."""
        return self.source.rsplit(":", 1)[0] if self.is_archived else self.source

    @property
    def is_archived(self) -> bool:
        """Whether it is a place in a Kaldi archive."""
        return ARCHIVE_ENTRY.match(self.source) is not None

    def at_speed(self, speed: float) -> "Entry":
        """The same source at another speed."""
        return replace(self, speed=speed)

    def absolute(self) -> "Entry":
        """The same by the source's whole path."""
        return replace(self, source=str(Path(self.source).resolve()))
