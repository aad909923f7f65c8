"""LibriSpeech's own layout: ``PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt``.

One recording an utterance stands beside the transcript, FLAC as published or any format that
libsndfile reads. Readers and their genders are in ``SPEAKERS.TXT``.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.kaldi_dir import lines_of
from espnet_prune.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
SUFFIXES = (".flac", ".opus", ".ogg", ".wav", ".mp3", ".sph")
TRANSCRIPT = ".trans.txt"
SPEAKERS_FILE = "SPEAKERS.TXT"
# Panayotov et al. 2015; the last two are Mini LibriSpeech's, openslr.org/31
UTTERANCES = {
    "dev-clean": 2703,
    "dev-other": 2864,
    "test-clean": 2620,
    "test-other": 2939,
    "train-clean-100": 28539,
    "train-clean-360": 104014,
    "train-other-500": 148688,
    "dev-clean-2": 1089,
    "train-clean-5": 1519,
}


@dataclass(frozen=True)
class Recording:
    """An utterance's ID, transcript, path and length."""

    utterance: str
    text: str
    path: str
    seconds: float


@dataclass(frozen=True)
class Chapter:
    """What was found in one chapter's folder.

    Attributes:
        folder: ``PART/SPEAKER/CHAPTER``.
        listed: number of its utterances by the transcript, bad ones included.
        recordings: those that are good.
        problems: what is wrong with the others, a line each.
    """

    folder: Path
    listed: int = 0
    recordings: list[Recording] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def speaker(self) -> str:
        """The reader's number."""
        return self.folder.parent.name


def find_root(folder: Path) -> Path:
    """The folder that holds the parts: the given one, or ``LibriSpeech`` in it.

    Raises:
        DataError: neither holds a part.
    """
    for root in (folder, folder / "LibriSpeech"):
        if parts_of(root):
            return root.resolve()
    raise DataError(
        f"{folder}: no LibriSpeech there: folders such as test-clean/SPEAKER/CHAPTER were "
        "expected; give the folder that holds them"
    )


def parts_of(root: Path) -> list[str]:
    """The parts in a folder: those that LibriSpeech has first, in a fixed order."""
    folders = root.iterdir() if root.is_dir() else ()
    found = {p.name for p in folders if next(p.glob(f"*/*/*{TRANSCRIPT}"), None)}
    known = [part for part in UTTERANCES if part in found]
    return known + sorted(found - set(known))


def chapter_folders(part: Path) -> list[Path]:
    """The chapters of a part."""
    return sorted(p for p in part.glob("*/*") if p.is_dir())


def chapter_name(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"


def _transcript(folder: Path) -> Path:
    return folder / f"{chapter_name(folder)}{TRANSCRIPT}"


def _lines(folder: Path) -> list[str]:
    text = _transcript(folder).read_text(encoding="utf-8")
    return [line for line in lines_of(text) if line.strip()]


def read_chapter_list(path: Path) -> dict[str, int]:
    """Reads lines ``SPEAKER-CHAPTER UTTERANCES``; ``#`` begins a comment.

    Raises:
        ConfigError: a line is of another form, or a chapter comes twice; names file and line.
    """
    chapters: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such list of chapters") from error
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or "-" not in words[0] or not words[1].isdecimal():
            raise ConfigError(f"{path}:{number}: 'SPEAKER-CHAPTER UTTERANCES' was expected")
        if words[0] in chapters:
            raise ConfigError(f"{path}:{number}: chapter {words[0]} comes twice; remove one")
        chapters[words[0]] = int(words[1])
    if not chapters:
        raise ConfigError(f"{path}: it lists no chapter")
    return chapters


def write_chapter_list(part: Path) -> str:
    """The text of a list of all chapters of a part's folder.

    Raises:
        DataError: the folder has no chapters, or one has no transcript.
    """
    folders = chapter_folders(part)
    if not folders:
        raise DataError(f"{part}: no folders SPEAKER/CHAPTER there; give a part of LibriSpeech")
    try:
        counts = {chapter_name(folder): len(_lines(folder)) for folder in folders}
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: no such transcript; unpack the part again") from error
    total = sum(counts.values())
    head = f"# {part.name}: {len(counts)} chapters, {total} utterances\n"
    return head + "".join(f"{name} {counts[name]}\n" for name in sorted(counts))


def read_chapter(folder: Path) -> Chapter:
    """Reads a chapter and decodes every recording, so that no damage is met in training."""
    try:
        lines = _lines(folder)
    except FileNotFoundError:
        return Chapter(folder, problems=[f"{_transcript(folder)}: no such transcript"])
    except (OSError, UnicodeDecodeError) as error:
        return Chapter(folder, problems=[f"{_transcript(folder)}: it can't be read ({error})"])
    if not lines:
        return Chapter(folder, problems=[f"{_transcript(folder)}: it is empty"])
    files = {p.name.partition(".")[0]: p for p in folder.iterdir() if p.suffix in SUFFIXES}
    chapter = Chapter(folder, len(lines))
    for number, line in enumerate(lines, 1):
        try:
            chapter.recordings.append(_recording(folder, line, number, files))
        except DataError as error:
            chapter.problems.append(str(error))
    for name in sorted(files):  # what no line has used up
        chapter.problems.append(f"{files[name]}: its transcript has no line for it")
    return chapter


def _recording(folder: Path, line: str, number: int, files: dict[str, Path]) -> Recording:
    """One utterance; takes its file out of ``files``."""
    utterance, text = (*line.split(None, 1), "")[:2]
    place = f"{_transcript(folder)}:{number}"
    path = files.pop(utterance, None)
    if not utterance.startswith(f"{chapter_name(folder)}-"):
        raise DataError(f"{place}: '{utterance}' is no utterance of chapter {chapter_name(folder)}")
    if path is None:
        raise DataError(f"{folder / utterance}: no recording with a suffix of {SUFFIXES}")
    if not text.strip():
        raise DataError(f"{place}: '{utterance}' has an empty transcript")
    samples, rate = read_audio(str(path), place, SAMPLE_RATE)
    return Recording(utterance, text.strip(), str(path), len(samples) / rate)


def read_genders(path: Path) -> dict[str, str]:
    """``f`` or ``m`` by reader, from SPEAKERS.TXT; empty where there is no such file.

    Raises:
        DataError: a line isn't ``ID | F or M | ...``; names it.
    """
    if not path.is_file():
        logger.warning("%s: no such file, so spk2gender is not written", path)
        return {}
    genders = {}
    for number, line in enumerate(lines_of(path.read_text(encoding="utf-8")), 1):
        if not line.strip() or line.startswith(";"):
            continue
        fields = [value.strip() for value in line.split("|")]
        if len(fields) < 2 or fields[1] not in ("F", "M"):
            raise DataError(f"{path}:{number}: 'ID | F or M | ...' was expected, not '{line}'")
        genders[fields[0]] = fields[1].lower()
    return genders
