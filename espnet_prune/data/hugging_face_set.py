"""A data set of Hugging Face's library ``datasets``, on this machine, as a Kaldi data directory."""

from pathlib import Path
from typing import Any

from espnet_prune.config import nearest
from espnet_prune.data.collection import Collection
from espnet_prune.errors import ConfigError, DataError, EnvironmentProblem

SAVED = ("dataset_info.json", "dataset_dict.json")  # in what ``save_to_disk`` wrote


def collect_hugging_face(path: Path, out: Path, split: str, columns: dict[str, str | None]) -> int:
    """Writes a data directory of one split.

    Args:
        path: a folder that ``save_to_disk`` wrote, or of Parquet files or recordings, as
            ``load_dataset`` reads it.
        out: the directory to make; recordings that are within the set become files of it.
        split: which one.
        columns: name of the column of ``audio``, ``text``, and, or None, ``speaker`` and ``id``.

    Returns:
        Number of utterances.

    Raises:
        ConfigError: there is no such split or column.
        DataError: it is no data set, or an utterance can't be used.
        EnvironmentProblem: the library is missing.
    """
    rows = _undecoded(_open(path, split), columns, path)
    found = Collection(path, out)
    for number, row in enumerate(rows):
        identity = row[columns["id"]] if columns["id"] else f"{split}-{number:08d}"
        name = found.name_of(str(identity))
        audio = row[columns["audio"]] or {}
        if audio.get("bytes"):
            suffix = Path(audio.get("path") or "").suffix or ".wav"
            entry = found.keep(name, audio["bytes"], suffix)
        elif audio.get("path"):
            entry = str(Path(audio["path"]).resolve())
        else:
            raise DataError(f"{path}: row {number} of {split} has no recording; leave it out")
        speaker = str(row[columns["speaker"]]) if columns["speaker"] else None
        found.add(name, entry, row[columns["text"]], speaker)
    return found.write()


def _open(path: Path, split: str):
    try:
        import datasets
    except ImportError as error:
        raise EnvironmentProblem(
            "datasets is missing; install the extra: pip install 'espnet_prune[datasets]'"
        ) from error
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder of a data set")
    try:
        if any((path / name).exists() for name in SAVED):
            found = datasets.load_from_disk(str(path))
        else:
            found = datasets.load_dataset(str(path))
    except Exception as error:  # the library raises errors of many classes
        raise DataError(
            f"{path}: can't be read as a data set ({error}); give a folder that save_to_disk "
            "wrote, or of Parquet files"
        ) from error
    if not isinstance(found, dict):  # one split alone
        return found
    if split not in found:
        raise ConfigError(
            f"--split: {path} has no '{split}'{nearest(split, found)}; it has {', '.join(found)}"
        )
    return found[split]


def _undecoded(rows: Any, columns: dict[str, str | None], path: Path):
    """The rows, with recordings as files or bytes: the library's own decoder isn't needed."""
    import datasets

    for option, column in columns.items():
        if column is not None and column not in rows.features:
            raise ConfigError(
                f"--{option}: {path} has no column '{column}'{nearest(column, rows.features)}; it "
                f"has {', '.join(rows.features)}"
            )
    audio = columns["audio"]
    if not isinstance(rows.features[audio], datasets.Audio):
        raise ConfigError(
            f"--audio: column '{audio}' of {path} is {rows.features[audio]}; expected Audio, as "
            "`cast_column(NAME, datasets.Audio())` makes it"
        )
    return rows.cast_column(audio, datasets.Audio(decode=False))
