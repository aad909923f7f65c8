"""Utterances of another library's data sets, gathered into a Kaldi data directory."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from espnet_prune.data.kaldi_dir import DataSet, check_id, write_data
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import atomic_path

logger = logging.getLogger(__name__)
AUDIO = "audio"  # folder of what has no file of its own


class Collection:
    """Recordings, texts and speakers of utterances, each ID once.

    Args:
        origin: where they come from, for errors.
        out: the directory to make.
    """

    def __init__(self, origin: Path, out: Path) -> None:
        self.origin = origin
        self.out = out
        self.recordings: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.speakers: dict[str, str] = {}
        self.without_text: list[str] = []

    def name_of(self, identity: str) -> str:
        """An ID as Kaldi has it: without white space and slashes.

        Raises:
            DataError: another utterance has it, or it can't name a file.
        """
        name = "_".join(identity.replace("/", " ").split())
        check_id(name, self.origin)
        if not name or name in self.recordings or name in self.without_text:
            raise DataError(
                f"{self.origin}: '{identity}' becomes the utterance ID '{name}', which is empty or "
                "another's; make IDs unique"
            )
        return name

    def add(self, name: str, entry: str, text: str | None, speaker: str | None) -> None:
        """Takes an utterance in; one without a text is left out, and told of at the end."""
        words = " ".join((text or "").split())
        if not words:
            self.without_text.append(name)
            return
        self.recordings[name] = entry
        self.texts[name] = words
        self.speakers[name] = "_".join((speaker or "").split()) or name

    def keep(self, name: str, content: bytes, suffix: str) -> str:
        """Writes a recording's file into the directory; returns its entry."""
        path = self.out / AUDIO / f"{name}{suffix}"
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        return str(path.resolve())

    def write(self) -> int:
        """Writes the directory; returns the number of utterances.

        Raises:
            DataError: there are none.
        """
        if not self.recordings:
            raise DataError(f"{self.origin}: it holds no utterance with a text")
        if self.without_text:
            logger.warning(
                "%s: %d utterances have no text and are left out, the first is '%s'",
                self.origin,
                len(self.without_text),
                self.without_text[0],
            )
        write_data(self.out, DataSet(self.recordings, self.texts, self.speakers))
        return len(self.recordings)


def sizes_of(path: Path) -> list[list]:
    """Names and sizes of the files of a folder, or of a file, by which another one is told."""
    files: Iterable[Path] = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [[str(p.relative_to(path.parent)), os.path.getsize(p)] for p in files if p.is_file()]
