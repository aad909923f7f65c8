"""What a line of ``wav.scp`` may say about an utterance's samples.

Kaldi's own: a path, ``archive.ark:offset``, or a command that ends in ``|`` and prints a recording.
Ours, before one of them, in this order:

- ``speed:FACTOR:`` plays it FACTOR times as fast;
- ``cut:START:END:`` takes a part of it, in seconds; END may be empty, for its end;
- ``channel:N:`` takes one of several channels, counted from 1.

Samples are changed when they are read, so that no copies are kept, and a program that doesn't know
such a line fails on it instead of reading the wrong samples.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

ARCHIVE_ENTRY = re.compile(r"^.+\.ark:\d+$")
NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
FORM = re.compile(
    rf"^(?:speed:(?P<speed>{NUMBER}):)?"
    rf"(?:cut:(?P<start>{NUMBER}):(?P<end>(?:{NUMBER})?):)?"
    r"(?:channel:(?P<channel>\d+):)?(?P<source>.+)$",
    re.DOTALL,
)


@dataclass(frozen=True)
class Entry:
    """Where an utterance's samples come from, and what is done to them.

    Attributes:
        source: a path, ``archive.ark:offset``, or a command that ends in ``|``.
        channel: which of several is taken, from 1; None where it doesn't say.
        start: where the part that is taken begins, in seconds.
        end: where it ends; None for the recording's end.
        speed: how many times as fast that is played.
    """

    source: str
    channel: int | None = None
    start: float = 0.0
    end: float | None = None
    speed: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Entry":
        """Reads the value of a line."""
        found = FORM.match(text)
        if found is None:
            return cls(text)
        return cls(
            source=found["source"],
            channel=int(found["channel"]) if found["channel"] else None,
            start=float(found["start"] or 0),
            end=float(found["end"]) if found["end"] else None,
            speed=float(found["speed"] or 1),
        )

    def __str__(self) -> str:
        """The value of a line; what ``parse`` reads."""
        speed = f"speed:{self.speed!r}:" if self.speed != 1 else ""
        end = "" if self.end is None else repr(self.end)
        cut = f"cut:{self.start!r}:{end}:" if self.is_part else ""
        channel = f"channel:{self.channel}:" if self.channel is not None else ""
        return f"{speed}{cut}{channel}{self.source}"

    @property
    def is_part(self) -> bool:
        """Whether it is a part of its source."""
        return self.start > 0 or self.end is not None

    @property
    def is_pipe(self) -> bool:
        """Whether its source is a command."""
        return self.source.rstrip().endswith("|")

    @property
    def is_archived(self) -> bool:
        """Whether its source is a place in a Kaldi archive."""
        return ARCHIVE_ENTRY.match(self.source) is not None

    @property
    def is_file(self) -> bool:
        """Whether it is the whole of a file as it is."""
        return str(self) == self.source and not (self.is_pipe or self.is_archived)

    @property
    def path(self) -> str:
        """The file that holds the samples; of a command, all of it."""
        return self.source.rsplit(":", 1)[0] if self.is_archived else self.source

    def at_speed(self, speed: float) -> "Entry":
        """The same at another speed."""
        return replace(self, speed=speed)

    def absolute(self) -> "Entry":
        """The same by the source's whole path."""
        return replace(self, source=str(Path(self.source).resolve()))
