"""Kaldi data directories mended: what can't be used is left out, with a list of it and why.

Lists are sorted, joined lines and marks removed, and every recording is read to its end. The lists
as they were stay in ``.backup``.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from espnet_prune.data.characters import without_invisible
from espnet_prune.data.entry import Entry
from espnet_prune.data.excerpt import Reading
from espnet_prune.data.kaldi_dir import FILES, OPTIONAL, check_id, speaker_lists, write_map
from espnet_prune.data.kaldi_segments import CHANNELS, SEGMENTS, cut_out
from espnet_prune.data.listen import listen
from espnet_prune.data.loose_lists import Loose, read_loosely
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import read_json, write_json, write_text

LEFT_OUT, BACKUP = "left_out.txt", ".backup"
HEARD = ".heard.json"  # what recordings were found to be wrong, of lists that were fixed before
SCP, TEXT, SPEAKERS, SPEAKER_LISTS = *FILES, "spk2utt"


@dataclass
class Fixed:
    """What became of a directory.

    Attributes:
        kept: number of utterances.
        left_out: reason by utterance, recording or line.
        cleaned: number of texts whose invisible characters were removed.
    """

    kept: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    cleaned: int = 0


def fix_data(folder: Path, reading: Reading, jobs: int = 1) -> Fixed:
    """Leaves out of a data directory what can't be used; ``left_out.txt`` lists it.

    Args:
        folder: the directory.
        reading: what will be done to recordings of other rates and channels.
        jobs: number of processes.

    Raises:
        DataError: a list is missing, or nothing can be used.
    """
    lists = _read(folder)
    fixed = Fixed()
    for found in lists.values():
        fixed.left_out.update(found.dropped)
    texts = {u: " ".join(text.split()) for u, text in lists[TEXT].values.items()}
    clean = {u: " ".join(without_invisible(text).split()) for u, text in texts.items()}
    fixed.cleaned = sum(clean[u] != texts[u] for u in texts)
    entries = _entries(folder, lists, clean, fixed.left_out)
    errors = _errors(folder, entries, reading, jobs)
    fixed.left_out.update(errors)
    kept = entries.keys() - errors.keys()
    if not kept:
        first = next(iter(fixed.left_out.items()), ("", "its lists are empty"))
        raise DataError(
            f"{folder}: nothing of it can be used; the first of {len(fixed.left_out)} reasons: "
            f"{': '.join(filter(None, first))}"
        )
    fixed.kept = len(kept)
    _write(folder, lists, clean, kept, fixed.left_out)
    _remember(folder, reading, {})
    return fixed


def _read(folder: Path) -> dict[str, Loose]:
    """The lists that there are; keys of utterances must do as names of files."""
    parts = (folder / SEGMENTS).exists()
    names = [name for name in (*FILES, *OPTIONAL) if name in FILES or (folder / name).exists()]
    recordings = {SCP, CHANNELS} if parts else {CHANNELS}
    return {
        name: read_loosely(folder / name)
        if name in recordings
        else read_loosely(folder / name, partial(check_id, path=folder / name))
        for name in names
    }


def _entries(
    folder: Path, lists: Mapping[str, Loose], texts: Mapping[str, str], left_out: dict[str, str]
) -> dict[str, str]:
    """The entry of every utterance that the lists agree on."""
    scp, speakers = lists[SCP].values, lists[SPEAKERS].values
    segments = lists[SEGMENTS].values if SEGMENTS in lists else None
    channels = lists[CHANNELS].values if CHANNELS in lists else {}
    utterances = scp if segments is None else segments
    entries = {}
    for utterance in sorted(utterances.keys() | texts.keys() | speakers.keys()):
        there = {"recording": utterances, "transcript": texts, "speaker": speakers}
        missing = [what for what, values in there.items() if not values.get(utterance)]
        if missing:
            left_out.setdefault(utterance, f"it has no {' and no '.join(missing)}")
            continue
        part = None if segments is None else {utterance: segments[utterance]}
        recording = utterance if segments is None else (segments[utterance].split() or [""])[0]
        whole = {recording: scp[recording]} if recording in scp else {}
        channel = {recording: channels[recording]} if recording in channels else {}
        try:
            entries.update(cut_out(whole, part, channel, folder))
        except DataError as error:
            left_out[utterance] = str(error)
    return entries


def _errors(
    folder: Path, entries: Mapping[str, str], reading: Reading, jobs: int
) -> dict[str, str]:
    """Why recordings can't be used; what is known of the same lists isn't listened to again."""
    known = read_json(folder / HEARD) if (folder / HEARD).exists() else {}
    digest = _digest(folder, reading)
    if digest in known:
        return {u: reason for u, reason in known[digest].items() if u in entries}
    heard = listen(entries, folder, reading, jobs, strict=False)
    errors = {utterance: found.error for utterance, found in heard.items() if found.error}
    _remember(folder, reading, errors)
    return errors


def _remember(folder: Path, reading: Reading, errors: Mapping[str, str]) -> None:
    known = read_json(folder / HEARD) if (folder / HEARD).exists() else {}
    write_json(folder / HEARD, {**known, _digest(folder, reading): dict(errors)})


def _digest(folder: Path, reading: Reading) -> str:
    """A hash of the lists as they are and the sizes of the files that they name."""
    digest = hashlib.sha256(repr(reading).encode())
    for name in (*FILES, *OPTIONAL):
        if (folder / name).exists():
            digest.update((folder / name).read_bytes())
    for text in read_loosely(folder / SCP).values.values():
        path = Entry.parse(text).path
        digest.update(str(os.path.getsize(path) if os.path.isfile(path) else None).encode())
    return digest.hexdigest()[:16]


def _write(
    folder: Path,
    lists: Mapping[str, Loose],
    texts: Mapping[str, str],
    kept: set[str],
    left_out: Mapping[str, str],
) -> None:
    _back_up(folder)
    used = kept
    if SEGMENTS in lists:
        parts = {u: lists[SEGMENTS].values[u] for u in kept}
        used = {value.split()[0] for value in parts.values()}
        write_map(folder / SEGMENTS, parts)
    if CHANNELS in lists:
        channels = {r: v for r, v in lists[CHANNELS].values.items() if r in used}
        if channels:
            write_map(folder / CHANNELS, channels)
        else:
            (folder / CHANNELS).unlink()
    speakers = {utterance: lists[SPEAKERS].values[utterance] for utterance in kept}
    write_map(folder / TEXT, {utterance: texts[utterance] for utterance in kept})
    write_map(folder / SPEAKERS, speakers)
    write_map(folder / SPEAKER_LISTS, speaker_lists(speakers))
    write_map(folder / SCP, {recording: lists[SCP].values[recording] for recording in used})
    if left_out:
        lines = (f"{name} {' '.join(reason.split())}\n" for name, reason in left_out.items())
        write_text(folder / LEFT_OUT, "".join(sorted(lines)))
    else:
        (folder / LEFT_OUT).unlink(missing_ok=True)


def _back_up(folder: Path) -> None:
    """Copies the lists as they are now, unless those before an earlier fix are there."""
    target = folder / BACKUP
    if target.exists():
        return
    temporary = folder / f"{BACKUP}.{os.getpid()}"
    temporary.mkdir()
    for name in (*FILES, *OPTIONAL, SPEAKER_LISTS):
        if (folder / name).exists():
            shutil.copy2(folder / name, temporary / name)
    temporary.rename(target)
