"""Kaldi data directories: read and written.

A directory holds ``wav.scp``, ``text``, ``utt2spk`` and ``spk2utt``, each a line an utterance (or
speaker), sorted, keys unique, the same utterances in all. With ``segments``, the lines of
``wav.scp`` are recordings, of which utterances are parts (``kaldi_segments``).
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet_prune.data.characters import invisible_in, name_of
from espnet_prune.data.kaldi_segments import CHANNELS, SEGMENTS, cut_out
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import write_text

FILES = ("wav.scp", "text", "utt2spk")
OPTIONAL = (SEGMENTS, CHANNELS)
# What Kaldi's and ESPnet's recipes may leave beside them, and nothing here reads.
NOT_READ = (
    *("utt2dur", "utt2lang", "utt2num_frames", "utt2uniq", "utt2category", "reco2dur"),
    *("feats.scp", "cmvn.scp", "vad.scp", "frame_shift", "spk2gender", "utt2gender", "stm", "glm"),
)
LONGEST_ID = 200  # bytes: files are called after IDs, with a speed and suffixes, in at most 255


@dataclass(frozen=True)
class DataSet:
    """One data directory.

    Attributes:
        recordings: wav.scp entry by utterance, its part and channel in it (``data.entry``).
        texts: transcript by utterance.
        speakers: speaker by utterance.
    """

    recordings: Mapping[str, str]
    texts: Mapping[str, str]
    speakers: Mapping[str, str]

    def subset(self, utterances) -> "DataSet":
        """The same set with only the given utterances."""
        keep = set(utterances)
        parts = (self.recordings, self.texts, self.speakers)
        return DataSet(*({u: v for u, v in part.items() if u in keep} for part in parts))


def where(folder: str | Path, utterance: str) -> str:
    """How errors name a recording of a data directory."""
    return f"{Path(folder) / 'wav.scp'}: utterance '{utterance}'"


def lines_of(text: str) -> list[str]:
    """The lines of a file as Kaldi and ESPnet see them: U+0085, U+2028 and so on end none."""
    return text.removesuffix("\n").split("\n") if text else []


def read_map(path: Path, empty_values: bool = False) -> dict[str, str]:
    """Reads one Kaldi file of ``key value`` lines; a byte-order mark before them is passed over.

    Raises:
        DataError: the file is missing or empty, a key comes twice, out of order or with invisible
            characters, a value is missing; names file, line and key.
    """
    try:
        lines = lines_of(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; run stage 1, or make it") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 ({error}); convert it, as by `iconv -f UTF-16 -t UTF-8 OLD > NEW`"
        ) from error
    values: dict[str, str] = {}
    previous = ""
    for number, line in enumerate(lines, 1):
        key, value = (*line.split(None, 1), "", "")[:2]
        place = f"{path}:{number}"
        if not key:
            raise DataError(f"{place}: an empty line; remove it")
        hidden = [] if key.isascii() and key.isprintable() else invisible_in(key, joiners=True)
        if hidden:
            raise DataError(
                f"{place}: '{key}' has an invisible character, {name_of(hidden[0])}; remove it"
            )
        if key in values:
            raise DataError(f"{place}: '{key}' comes twice; utterance IDs must be unique")
        if key < previous:
            raise DataError(f"{place}: '{key}' is out of order; sort the file with LC_ALL=C sort")
        if not value.strip() and not empty_values:
            raise DataError(f"{place}: '{key}' has an empty value; give it one or drop the line")
        values[key] = value.strip()
        previous = key
    if not values:
        raise DataError(f"{path}: it is empty; at least one line was expected")
    return values


def read_data(folder: str | Path) -> DataSet:
    """Reads a data directory and checks that its files agree.

    Raises:
        DataError: as ``read_map``; an utterance that one file has and another lacks; an
            utterance ID that can't name a file; an invisible character in a text.
    """
    folder = Path(folder)
    whole, texts, speakers = (read_map(folder / name) for name in FILES)
    segments, channels = (
        read_map(folder / name) if (folder / name).exists() else None for name in OPTIONAL
    )
    recordings = cut_out(whole, segments, channels or {}, folder)
    first = FILES[0] if segments is None else SEGMENTS
    for utterance in recordings:
        check_id(utterance, folder / first)
    for name, values in zip(FILES[1:], (texts, speakers), strict=True):
        for missing in (recordings.keys() - values.keys(), values.keys() - recordings.keys()):
            if missing:
                utterance = min(missing)
                has, lacks = (first, name) if utterance in recordings else (name, first)
                what = {"text": "transcript", "utt2spk": "speaker"}.get(lacks, "recording")
                raise DataError(
                    f"{folder / lacks}: no {what} for utterance '{utterance}', which {has} has "
                    f"({len(missing)} in all); add it or drop the utterance"
                )
    texts = {u: " ".join(text.split()) for u, text in texts.items()}
    _check_texts(texts, folder / "text")
    return DataSet(recordings, texts, speakers)


def check_id(utterance: str, path: Path) -> None:
    """DataError for an utterance ID that can't become the name of a file."""
    if "/" in utterance:
        raise DataError(
            f"{path}: utterance ID '{utterance}' has a '/', but IDs become names of files; rename "
            "it in every file"
        )
    size = len(utterance.encode())
    if size > LONGEST_ID:
        raise DataError(
            f"{path}: utterance ID '{utterance}' has {size} bytes, {LONGEST_ID} are allowed, as "
            "IDs become names of files; shorten it in every file"
        )


def _check_texts(texts: Mapping[str, str], path: Path) -> None:
    """DataError for invisible characters, by which words that look alike would differ."""
    hidden = {u: invisible_in(text) for u, text in texts.items() if not text.isascii()}
    found = [utterance for utterance, characters in hidden.items() if characters]
    if found:
        names = ", ".join(sorted({name_of(c) for u in found for c in hidden[u]}))
        raise DataError(
            f"{path}: {len(found)} texts have invisible characters ({names}), the first is that of "
            f"'{found[0]}'; remove them, as `espnet-prune fix_data` does"
        )


def speaker_lists(speakers: Mapping[str, str]) -> dict[str, str]:
    """spk2utt from utt2spk."""
    lists: dict[str, list[str]] = defaultdict(list)
    for utterance in sorted(speakers):
        lists[speakers[utterance]].append(utterance)
    return {speaker: " ".join(lists[speaker]) for speaker in sorted(lists)}


def write_map(path: Path, values: Mapping[str, str]) -> None:
    """Writes one Kaldi file, sorted by key, atomically."""
    write_text(path, "".join(f"{key} {values[key]}".rstrip() + "\n" for key in sorted(values)))


def write_data(folder: str | Path, data: DataSet) -> None:
    """Writes a data directory, ``wav.scp`` last, so that one that has it is whole."""
    folder = Path(folder)
    write_map(folder / "text", data.texts)
    write_map(folder / "utt2spk", data.speakers)
    write_map(folder / "spk2utt", speaker_lists(data.speakers))
    write_map(folder / "wav.scp", data.recordings)
