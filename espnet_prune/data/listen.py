"""Many utterances read in parallel, each of their sources once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from espnet_prune.data.audio_io import named, read_source
from espnet_prune.data.decode import Decoded
from espnet_prune.data.entry import Entry
from espnet_prune.data.excerpt import Reading, taken
from espnet_prune.data.kaldi_dir import where
from espnet_prune.data.parallel import parallel_map
from espnet_prune.errors import DataError


@dataclass(frozen=True)
class Heard:
    """What is kept of an utterance once it has been read.

    Attributes:
        samples: how many.
        rate: in Hz.
        notes: what a user should know of it.
        error: why it can't be used; empty where it can.
    """

    samples: int
    rate: int
    notes: tuple[str, ...] = ()
    error: str = ""


def by_source(entries: Mapping[str, Entry]) -> list[dict[str, Entry]]:
    """Utterances in groups of one source each, in the order in which they come first."""
    groups: dict[str, dict[str, Entry]] = defaultdict(dict)
    for utterance, entry in entries.items():
        groups[entry.source][utterance] = entry
    return list(groups.values())


def each_of_source(
    group: Mapping[str, Entry], folder: Path, reading: Reading
) -> Iterable[tuple[str, Callable[[], Decoded]]]:
    """Utterances of one source, and what reads each; the source is read once.

    Args:
        group: their entries.
        folder: the data directory, for errors.
        reading: what is done to them.

    Yields:
        An utterance, and a function that gives its samples or raises DataError.
    """
    wholes: list[Decoded] = []

    def read(utterance: str, entry: Entry) -> Decoded:
        place = where(folder, utterance)
        if not wholes:
            wholes.append(read_source(entry.source, place, reading.pipes))
        return taken(wholes[0], entry, named(str(entry), place), reading)

    for utterance, entry in group.items():
        yield utterance, partial(read, utterance, entry)


def listen(
    entries: Mapping[str, str], folder: Path, reading: Reading, jobs: int, strict: bool = True
) -> dict[str, Heard]:
    """Reads all utterances to their last sample.

    Args:
        entries: those of ``wav.scp``, by utterance.
        folder: the data directory.
        reading: what is done to them.
        jobs: number of processes.
        strict: whether the first that can't be used ends this.

    Raises:
        DataError: ``strict``, and one can't be used.
    """
    groups = by_source({utterance: Entry.parse(text) for utterance, text in entries.items()})
    function = partial(_listen, folder=folder, reading=reading, strict=strict)
    found: dict[str, Heard] = {}
    for group in parallel_map(function, groups, jobs, str(folder)):
        found.update(group)
    return {utterance: found[utterance] for utterance in entries}


def _listen(
    group: Mapping[str, Entry], folder: Path, reading: Reading, strict: bool
) -> dict[str, Heard]:
    heard = {}
    for utterance, read in each_of_source(group, folder, reading):
        try:
            found = read()
            heard[utterance] = Heard(len(found.samples), found.rate, found.notes)
        except DataError as error:
            if strict:
                raise
            heard[utterance] = Heard(0, 0, error=str(error))
    return heard


def told(heard: Mapping[str, Heard]) -> list[str]:
    """One line for all utterances of which the same is to be said."""
    by_note: dict[str, list[str]] = defaultdict(list)
    for utterance, found in heard.items():
        for note in found.notes:
            by_note[note].append(utterance)
    return [f"{some_of(names)}: {note}" for note, names in by_note.items()]


def some_of(names: Sequence[str], shown: int = 3) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(map(repr, names[:shown]))}{more}"
