"""Resuming a stage that makes many files: those already there are kept if the same data made them.

A stage's configuration names its inputs by a fingerprint: of data directories the content of the
Kaldi files, so also the paths of the recordings, and of each file of recordings its size alone, as
reading them all would take as long as many a stage. So data that changed under the same name is
noticed, never half reused, with one exception: audio replaced in place by other audio of exactly
as many bytes isn't noticed. After such a change remove what was made of it.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from espnet_prune.data.entry import Entry
from espnet_prune.data.kaldi_dir import FILES, OPTIONAL, read_map
from espnet_prune.data.pipe import words_of
from espnet_prune.io_atomic import read_json, write_json


def begin(mark: Path, config: Mapping, targets: Iterable[Path]) -> None:
    """Removes targets that an unfinished run with another configuration left; marks this run.

    Args:
        mark: the file that says which configuration began to make the targets.
        config: what the targets depend on.
        targets: the files that this run makes, unless they are there.
    """
    config = dict(config)
    if mark.exists() and read_json(mark) == config:
        return
    # looked up at once: what another job of this run makes from now on must stay
    for target in _existing(targets):
        target.unlink(missing_ok=True)
    write_json(mark, config)


def _existing(targets: Iterable[Path]) -> list[Path]:
    names: dict[Path, set[str]] = {}
    found = []
    for target in targets:
        folder = target.parent
        if folder not in names:
            names[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
        if target.name in names[folder]:
            found.append(target)
    return found


def fingerprint(folder: Path) -> str:
    """A short hash of a data directory's Kaldi files and of its recordings' sizes in bytes.

    Another utterance, text, speaker, path, or file of another size changes it; samples of a file,
    or of an archive, that keeps its path and size don't, nor do the order of lines and dates.
    """
    digest = hashlib.sha256()
    for name in (*FILES, *(name for name in OPTIONAL if (folder / name).exists())):
        digest.update(file_fingerprint(folder / name).encode())
    for entry in read_map(folder / "wav.scp").values():
        for path in _files_of(Entry.parse(entry)):
            size = os.path.getsize(path) if os.path.isfile(path) else None  # that raises nothing
            digest.update(str(size).encode())
    return digest.hexdigest()[:12]


def _files_of(entry: Entry) -> Iterable[str]:
    """The file of an entry, or the words of a pipe, some of which are files."""
    if not entry.is_pipe:
        return [entry.path]
    try:
        return itertools.chain.from_iterable(words_of(entry.source))
    except ValueError:  # which is told where it is read
        return []


def file_fingerprint(path: Path) -> str:
    """A short hash of a Kaldi file's content; ``read_map`` says what is wrong with it."""
    content = sorted(read_map(path).items())
    return hashlib.sha256(repr(content).encode()).hexdigest()[:12]
