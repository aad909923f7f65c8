"""A data directory with every utterance at several speeds, which are applied when it is read."""

from collections.abc import Sequence
from pathlib import Path

from espnet_prune.config import check_range
from espnet_prune.data.entry import Entry
from espnet_prune.data.kaldi_dir import DataSet, read_data, write_data
from espnet_prune.errors import ConfigError, DataError


def perturb_data(source: Path, out: Path, factors: Sequence[float]) -> DataSet:
    """Writes a data directory that names every recording at every speed.

    Args:
        source: a data directory.
        out: the directory to make; ``sp0.9-`` goes before utterances and speakers, nothing
            before those of factor 1.
        factors: speeds, each once.

    Returns:
        What ``out`` holds.

    Raises:
        ConfigError: a factor twice or out of range.
        DataError: the source isn't a data directory, or has an ID that another would get.
    """
    if len(set(factors)) != len(factors):
        raise ConfigError(f"--factors {list(factors)}: a factor comes twice")
    data = read_data(source)
    recordings, texts, speakers = {}, {}, {}
    for factor in factors:
        check_range("--factors", factor, 0.5, 2.0)
        prefix = "" if factor == 1 else f"sp{factor:g}-"
        for utterance, entry in data.recordings.items():
            name = prefix + utterance
            if name in recordings:
                raise DataError(
                    f"{source}: '{name}' would be two utterances, as the source has one of that "
                    "name already: is its speed perturbed? Give the original, or rename it"
                )
            recordings[name] = str(_faster(entry, factor))
            texts[name] = data.texts[utterance]
            speakers[name] = prefix + data.speakers[utterance]
    perturbed = DataSet(recordings, texts, speakers)
    write_data(out, perturbed)
    return perturbed


def _faster(text: str, factor: float) -> Entry:
    entry = Entry.parse(text)
    return entry.at_speed(entry.speed * factor)
