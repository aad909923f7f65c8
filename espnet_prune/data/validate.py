"""Kaldi data directories checked: their files agree, and every recording is read to its end."""

from dataclasses import asdict, dataclass
from pathlib import Path

from espnet_prune.data.entry import Entry
from espnet_prune.data.excerpt import AS_IT_IS, Reading
from espnet_prune.data.kaldi_dir import NOT_READ, DataSet, read_data, read_map, speaker_lists
from espnet_prune.data.listen import listen, some_of, told
from espnet_prune.errors import DataError


@dataclass(frozen=True)
class Holding:
    """What a directory holds.

    Attributes:
        utterances: how many.
        speakers: how many.
        words: how many.
        seconds: length of audio.
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


def validate(
    folder: str | Path, reading: Reading = AS_IT_IS, jobs: int = 1
) -> tuple[DataSet, Holding]:
    """Checks a data directory and every recording in it, to its last sample.

    Args:
        folder: the directory.
        reading: what will be done to recordings of other rates and channels.
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
    heard = listen(data.recordings, folder, reading, jobs)
    holding = Holding(
        utterances=len(data.texts),
        speakers=len(set(data.speakers.values())),
        words=sum(len(text.split()) for text in data.texts.values()),
        seconds=sum(found.samples / found.rate for found in heard.values()),
        notes=(*told(heard), *_of_the_folder(folder, data)),
    )
    return data, holding


def _of_the_folder(folder: Path, data: DataSet) -> list[str]:
    """What isn't used of it."""
    notes = []
    ignored = [name for name in NOT_READ if (folder / name).exists()]
    if ignored:
        notes.append(f"not read: {', '.join(ignored)}")
    sources = {Entry.parse(entry).source for entry in data.recordings.values()}
    whole = read_map(folder / "wav.scp")
    unused = [r for r, entry in whole.items() if Entry.parse(entry).source not in sources]
    if unused:
        notes.append(f"{some_of(unused)}: no utterance is a part of it")
    return notes
