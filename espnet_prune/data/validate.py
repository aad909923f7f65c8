"""Kaldi data directories checked: their files agree, and every recording is read to its end."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from espnet_prune.data.audio_io import examine
from espnet_prune.data.kaldi_dir import DataSet, read_data, read_map, speaker_lists, where
from espnet_prune.data.parallel import parallel_map
from espnet_prune.errors import DataError

logger = logging.getLogger(__name__)
SHOWN = 3


@dataclass(frozen=True)
class Holding:
    """What a directory holds.

    Attributes:
        utterances: how many.
        speakers: how many.
        words: how many.
        seconds: of audio.
        notes: what a user should know, as lines.
    """

    utterances: int
    speakers: int
    words: int
    seconds: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for the user."""
        return (
            f"{self.utterances} utterances, {self.speakers} speakers, {self.words} words, "
            f"{self.seconds / 60:.1f} min"
        )

    def to_json(self) -> dict:
        """For a file."""
        return asdict(self)


@dataclass(frozen=True)
class _Heard:
    """What is kept of a recording once it has been read."""

    samples: int
    rate: int
    notes: tuple[str, ...]


def validate(
    folder: str | Path, sample_rate: int | None = None, jobs: int = 1
) -> tuple[DataSet, Holding]:
    """Checks a data directory and every recording in it, to its last sample.

    Args:
        folder: the directory.
        sample_rate: in Hz; None demands only that all are the same.
        jobs: number of processes.

    Returns:
        The data, and how much it is.

    Raises:
        DataError: names the file, the line or utterance, what was expected and the remedy.
    """
    folder = Path(folder)
    data = read_data(folder)
    if read_map(folder / "spk2utt") != speaker_lists(data.speakers):
        raise DataError(
            f"{folder / 'spk2utt'}: it doesn't agree with utt2spk; make it anew from it"
        )
    items = [(entry, where(folder, u)) for u, entry in data.recordings.items()]
    heard = dict(zip(data.recordings, parallel_map(_hear, items, jobs, str(folder)), strict=True))
    _check_rates(heard, sample_rate, folder)
    holding = Holding(
        utterances=len(data.texts),
        speakers=len(set(data.speakers.values())),
        words=_count_words(data),
        seconds=sum(found.samples / found.rate for found in heard.values()),
        notes=_notes(heard),
    )
    return data, holding


def _hear(item: tuple[str, str]) -> _Heard:
    found = examine(*item)
    return _Heard(len(found.samples), found.rate, found.notes)


def _count_words(data: DataSet) -> int:
    return sum(len(text.split()) for text in data.texts.values())


def _check_rates(heard: Mapping[str, _Heard], sample_rate: int | None, folder: Path) -> None:
    expected = sample_rate or next(iter(heard.values())).rate
    for utterance, found in heard.items():
        if found.rate != expected:
            raise DataError(
                f"{where(folder, utterance)}: sampled at {found.rate} Hz, {expected} Hz was "
                "expected; resample it"
            )


def _notes(heard: Mapping[str, _Heard]) -> tuple[str, ...]:
    """One line for all utterances of which the same is to be said."""
    said = Counter(note for found in heard.values() for note in found.notes)
    lines = []
    for note, count in said.items():
        names = [u for u, found in heard.items() if note in found.notes][:SHOWN]
        more = f" and {count - len(names)} more" if count > len(names) else ""
        lines.append(f"{', '.join(map(repr, names))}{more}: {note}")
    return tuple(lines)
