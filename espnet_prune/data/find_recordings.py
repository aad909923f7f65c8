"""The recordings of a folder, whatever their names end in."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from espnet_prune.data.decode import CHECKED, as_value_errors, format_of

# What is meant to be a recording, also where it is damaged, which is an error of its own.
SUFFIXES = {
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".sph", ".nist"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"),
}
SHOWN = 50


@dataclass(frozen=True)
class Found:
    """What a folder and those below it hold, hidden files and folders left out.

    Attributes:
        recordings: sorted.
        others: files that no reader here can open, sorted.
    """

    recordings: tuple[Path, ...]
    others: tuple[Path, ...]

    def left_out(self, folder: Path) -> str:
        """How many others there are, and which; empty where there are none."""
        if not self.others:
            return ""
        names = [str(path.relative_to(folder)) for path in self.others[:SHOWN]]
        more = f" and {len(self.others) - SHOWN} more" if len(self.others) > SHOWN else ""
        return f"{len(self.others)} files hold no recording: {', '.join(map(repr, names))}{more}"


def find_recordings(folder: Path) -> Found:
    """Looks for everything that libsndfile opens as sound.

    Links to folders are followed, each folder once.

    Raises:
        OSError: a folder can't be read.
    """
    recordings, others = [], []
    for path in _files(folder, set()):
        (recordings if _is_recording(path) else others).append(path)
    return Found(tuple(sorted(recordings)), tuple(sorted(others)))


def _files(folder: Path, seen: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if entry.is_dir():
                yield from _files(path, seen)
            else:
                yield path


def _is_recording(path: Path) -> bool:
    if not path.is_file():  # a pipe would be waited for
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with as_value_errors(), path.open("rb") as file:
            return format_of(file) in CHECKED
    except ValueError:
        return False
