"""LibriSpeech as Kaldi data directories: whole parts, or chapters of one's own choice.

Panayotov et al. 2015, "LibriSpeech: an ASR corpus based on public domain audio books"; its numbers
of utterances are checked. Chapters on a list are looked up in every part that is there: a subset is
then the same for everybody who has the corpus.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_prune.config import check_choice, config_hash, load_yaml, to_dataclass
from espnet_prune.data.kaldi_dir import DataSet, write_data, write_map
from espnet_prune.data.librispeech_download import MD5
from espnet_prune.data.librispeech_layout import (
    SPEAKERS_FILE,
    UTTERANCES,
    Chapter,
    chapter_folders,
    chapter_name,
    parts_of,
    read_chapter,
    read_chapter_list,
    read_genders,
)
from espnet_prune.data.parallel import parallel_map
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.io_atomic import write_text

logger = logging.getLogger(__name__)

SKIPPED_FILE = "skipped.txt"
SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class SetConfig:
    """One set.

    Attributes:
        parts: whole parts of the corpus.
        chapters: files that list chapters, relative to the YAML file.
    """

    parts: tuple[str, ...] = ()
    chapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """What a recipe's data.yaml says.

    Attributes:
        sets: what each data directory is made of.
        download: the parts that hold all of it, fetched where no corpus is given.
    """

    sets: dict[str, SetConfig]
    download: tuple[str, ...] = ()


def read_corpus(path: Path) -> Corpus:
    """Reads data.yaml; paths of lists become absolute.

    Raises:
        ConfigError: an unknown key, a set of nothing or of both kinds, an unknown part.
    """
    corpus = to_dataclass(Corpus, load_yaml(path), str(path))
    for part in corpus.download:
        check_choice(f"{path}: download", part, MD5)
    sets = {}
    for name, chosen in corpus.sets.items():
        if bool(chosen.parts) == bool(chosen.chapters):
            raise ConfigError(f"{path}: sets.{name}: either parts or chapters was expected")
        lists = tuple(str((path.parent / file).resolve()) for file in chosen.chapters)
        sets[name] = SetConfig(chosen.parts, lists)
    return Corpus(sets, corpus.download)


def describe(corpus: Corpus) -> dict[str, dict]:
    """The sets by content, for the record of what made the data."""
    return {
        name: {
            "parts": list(entry.parts),
            "chapters": [config_hash(read_chapter_list(Path(file))) for file in entry.chapters],
        }
        for name, entry in corpus.sets.items()
    }


def prepare(
    root: Path, corpus: Corpus, out: Path, jobs: int = 1, skip_bad: bool = False
) -> dict[str, float]:
    """Writes a data directory a set, after all of them were read whole.

    Args:
        root: the folder that holds the parts.
        corpus: the sets.
        out: the recipe's data folder.
        jobs: number of processes.
        skip_bad: leave out what is damaged or missing, into ``skipped.txt``, and go on.

    Returns:
        Hours by set.

    Raises:
        DataError: a part or chapter is missing, a file is missing, damaged or empty, or a whole
            part hasn't its published number of utterances; names them.
    """
    genders = read_genders(root / SPEAKERS_FILE)
    index = _Index(root)
    chosen = {name: _chosen(name, index, entry) for name, entry in corpus.sets.items()}
    folders = sorted({folder for found, _ in chosen.values() for folder in found})
    chapters = dict(
        zip(folders, parallel_map(read_chapter, folders, jobs, "chapters"), strict=True)
    )
    problems = {
        name: [
            *(problem for folder in found for problem in chapters[folder].problems),
            *check_counts(expected, {f: chapters[f].listed for f in found}),
        ]
        for name, (found, expected) in chosen.items()
    }
    _report(problems, skip_bad)
    hours = {}
    for name, (found, _) in chosen.items():
        parts = [chapters[folder] for folder in found]
        if problems[name]:
            write_text(out / name / SKIPPED_FILE, "\n".join(problems[name]) + "\n")
        hours[name] = _write(out / name, parts, genders)
    return hours


class _Index:
    """Chapters of a corpus by name; looked up in every part, known parts first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parts = parts_of(root)
        self._places: dict[str, Path] | None = None

    def part(self, name: str, where: str) -> list[Path]:
        if name not in self.parts:
            raise DataError(
                f"{self.root}: {where} needs the part '{name}', there are only {self.parts}; "
                "unpack it there, or give the folder that has it"
            )
        return chapter_folders(self.root / name)

    def chapter(self, name: str, where: str) -> Path:
        if self._places is None:
            every = (folder for part in self.parts for folder in chapter_folders(self.root / part))
            self._places = {}
            for folder in every:
                self._places.setdefault(chapter_name(folder), folder)
        if name not in self._places:
            raise DataError(
                f"{self.root}: {where} lists chapter {name}, which none of the parts {self.parts} "
                "has; unpack the part that has it there"
            )
        return self._places[name]


@dataclass(frozen=True)
class _Count:
    """How many utterances there must be, where, and what says so."""

    folders: Sequence[Path]
    utterances: int
    where: str


def _chosen(name: str, index: _Index, entry: SetConfig) -> tuple[list[Path], list[_Count]]:
    """A set's folders, and the counts that they must have."""
    folders: list[Path] = []
    counts: list[_Count] = []
    for part in entry.parts:
        found = index.part(part, f"the set {name}")
        folders += found
        if part in UTTERANCES:
            where = f"{index.root / part}, as published,"
            counts.append(_Count(found, UTTERANCES[part], where))
    for file in entry.chapters:
        for chapter, utterances in read_chapter_list(Path(file)).items():
            folder = index.chapter(chapter, file)
            folders.append(folder)
            counts.append(_Count([folder], utterances, f"{folder}, by {file},"))
    if len(set(folders)) != len(folders):
        raise ConfigError(f"sets.{name}: a chapter is in it twice; correct its lists")
    return folders, counts


def check_counts(counts: Iterable[_Count], listed: Mapping[Path, int]) -> list[str]:
    """What is wrong with the numbers of utterances, a line each."""
    found = ((count, sum(listed[folder] for folder in count.folders)) for count in counts)
    return [
        f"{count.where} should have {count.utterances} utterances, not {number}; unpack it again"
        for count, number in found
        if number != count.utterances
    ]


def _report(problems: Mapping[str, Sequence[str]], skip_bad: bool) -> None:
    every = list(dict.fromkeys(problem for lines in problems.values() for problem in lines))
    if not every:
        return
    shown = "\n  ".join(every[:SHOWN_PROBLEMS])
    if len(every) > SHOWN_PROBLEMS:
        shown += f"\n  and {len(every) - SHOWN_PROBLEMS} more"
    if not skip_bad:
        raise DataError(
            f"{len(every)} of the corpus's files or folders are not as they should be:\n  {shown}\n"
            "Unpack the part again, or leave them out by --skip_bad."
        )
    logger.warning("left out, %d problems:\n  %s", len(every), shown)


def _write(folder: Path, chapters: Sequence[Chapter], genders: Mapping[str, str]) -> float:
    """Writes a data directory; returns its hours."""
    items = [(chapter.speaker, r) for chapter in chapters for r in chapter.recordings]
    if not items:
        raise DataError(f"{folder}: no good utterance is left for it")
    speakers = {recording.utterance: speaker for speaker, recording in items}
    data = DataSet(
        {recording.utterance: recording.path for _, recording in items},
        {recording.utterance: recording.text for _, recording in items},
        speakers,
    )
    if genders:
        unknown = sorted(set(speakers.values()) - genders.keys())
        if unknown:
            raise DataError(f"{SPEAKERS_FILE}: it has no line for reader {unknown[0]}; unpack it")
        write_map(folder / "spk2gender", {s: genders[s] for s in set(speakers.values())})
    write_data(folder, data)
    hours = sum(recording.seconds for _, recording in items) / 3600
    logger.info("%s: %d utterances, %.2f hours", folder, len(items), hours)
    return hours
