"""ESPnet data types for 16-bit samples: in Kaldi archives, and at other speeds.

ESPnet's own ``kaldi_ark`` hands the integers on unscaled, while its file reader gives [-1, 1].
"""

from collections.abc import Callable, Iterator, Mapping

import numpy

from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.entry import Entry

PCM_ARCHIVE = "pcm_archive"
AT_SPEEDS = "at_speeds"
FULL_SCALE = 32768.0


def kind_of(entries: Mapping[str, str]) -> str:
    """The data type that reads a dump folder's recordings.

    Args:
        entries: those of its ``wav.scp``, by utterance.
    """
    if any(Entry.parse(entry).speed != 1 for entry in entries.values()):
        return AT_SPEEDS
    return PCM_ARCHIVE if Entry(next(iter(entries.values()))).is_archived else "sound"


def _scaled(samples: numpy.ndarray) -> numpy.ndarray:
    return samples.astype(numpy.float32) / FULL_SCALE


def _read(entry: str) -> numpy.ndarray:
    return _scaled(read_audio(entry, "wav.scp")[0])


class _AtSpeeds(Mapping):
    """Samples (samples,) by utterance, at the speeds that a ``wav.scp`` says, within [-1, 1]."""

    def __init__(self, entries: Mapping[str, str]) -> None:
        self.entries = entries

    def __getitem__(self, key: str) -> numpy.ndarray:
        return _read(self.entries[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def register() -> None:
    """Adds the types to ESPnet's two tables, for training and for statistics."""
    from espnet2.train import dataset, iterable_dataset

    class Adapter(dataset.AdapterForSoundScpReader):
        """Samples (samples,) by utterance, scaled to [-1, 1]."""

        def __getitem__(self, key: str) -> numpy.ndarray:
            return _scaled(super().__getitem__(key))

    def add(name: str, what: str, open_list: Callable, read: Callable) -> None:
        dataset.DATA_TYPES[name] = {"func": open_list, "kwargs": [], "help": what}
        iterable_dataset.DATA_TYPES[name] = read

    add(
        PCM_ARCHIVE,
        "16-bit samples in Kaldi archives, scaled to [-1, 1]",
        lambda path: Adapter(dataset.kaldi_io.load_scp(path)),
        lambda entry: _scaled(dataset.kaldi_io.load_mat(entry)[1]),
    )
    add(
        AT_SPEEDS,
        "recordings, some of them played faster or slower, scaled to [-1, 1]",
        lambda path: _AtSpeeds(dataset.read_2columns_text(path)),
        _read,
    )
