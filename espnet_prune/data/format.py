"""Formatting: recordings in one format and rate, or kept; lengths known, outliers left out.

Whatever a data directory says of its recordings (parts, channels, commands, other rates) is done
here once, so that all later stages read plain files. Another speed alone stays an entry's: every
recording is formatted once for all its speeds. Kept recordings are decoded once nevertheless, so
that no damage is met in training.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy

from espnet_prune.config import check_choice
from espnet_prune.data.audio_io import write_archive, write_audio
from espnet_prune.data.entry import Entry
from espnet_prune.data.excerpt import Reading
from espnet_prune.data.kaldi_dir import DataSet, read_data, where, write_data, write_map
from espnet_prune.data.listen import by_source, each_of_source
from espnet_prune.data.parallel import WHOLE, Share, parallel_map
from espnet_prune.data.resume import begin, fingerprint
from espnet_prune.data.speed import perturbed_length
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.io_atomic import read_json, write_json

logger = logging.getLogger(__name__)
KEEP, ARCHIVE = "keep", "ark"
FORMATS = ("flac", ARCHIVE, KEEP)
CASES = {"keep": str, "lower": str.lower, "upper": str.upper}
UTTERANCES_AN_ARCHIVE = 500
SHARES, SHARE_FILES = ".shares", "[0-9]*.json"  # not those half written, which begin with a dot


@dataclass(frozen=True)
class Formatting:
    """How a directory is formatted.

    Attributes:
        reading: what is done to recordings of other rates and channels; with its rate.
        kind: ``flac`` (a file an utterance), ``ark`` (Kaldi archives), or ``keep`` (the recordings
            that the source names, whatever their format).
        min_seconds: shorter utterances are left out.
        max_seconds: longer ones too.
        text_case: case of the transcripts: ``keep``, ``lower`` or ``upper``.
    """

    reading: Reading
    kind: str = "flac"
    min_seconds: float = 0.0
    max_seconds: float = float("inf")
    text_case: str = "keep"


@dataclass(frozen=True)
class _Part:
    """Utterances that are written together: their entries, of ``source``.

    Into one archive, or of one recording into a file each, in ``folder``.
    """

    source: Path
    entries: dict[str, Entry]
    folder: Path
    name: str
    reading: Reading
    kind: str

    def file_of(self, utterance: str) -> Path:
        """What an utterance goes into."""
        return self.folder / (self.name if self.kind == ARCHIVE else f"{utterance}.flac")

    def files(self) -> set[Path]:
        """All that it makes."""
        return set() if self.kind == KEEP else {self.file_of(u) for u in self.entries}


@dataclass(frozen=True)
class _Made:
    """An utterance's new entry, number of samples, and the rate that it had."""

    entry: str
    samples: int
    rate: int


def _write(part: _Part) -> dict[str, _Made]:
    """Writes the files of a part."""
    samples: dict[str, numpy.ndarray] = {}
    made: dict[str, _Made] = {}
    for group in by_source(part.entries):
        for utterance, read in each_of_source(group, part.source, part.reading):
            found, path = read(), part.file_of(utterance)
            entry = str(path)
            if part.kind == KEEP:
                entry = str(part.entries[utterance].absolute())
            elif part.kind == ARCHIVE:  # its offsets are only known by writing it
                samples[utterance] = found.samples
            elif not path.exists():
                write_audio(path, found.samples, found.rate)
            made[utterance] = _Made(entry, len(found.samples), found.rate_before)
    if part.kind == ARCHIVE:
        entries = write_archive(part.folder / part.name, samples, part.reading.sample_rate)
        made = {u: replace(one, entry=entries[u]) for u, one in made.items()}
    return made


def _parts(entries: Mapping[str, Entry], source: Path, audio: Path, how: Formatting) -> list[_Part]:
    """Each recording is read for one part alone; archives hold so many utterances, or more."""
    groups = by_source(dict(sorted(entries.items())))
    if how.kind == ARCHIVE:
        groups = _joined(groups, UTTERANCES_AN_ARCHIVE)
    return [
        _Part(source, group, audio, f"audio.{number}.ark", how.reading, how.kind)
        for number, group in enumerate(groups)
    ]


def _joined(groups: Sequence[dict[str, Entry]], size: int) -> list[dict[str, Entry]]:
    joined: list[dict[str, Entry]] = []
    for group in groups:
        if not joined or len(joined[-1]) >= size:
            joined.append({})
        joined[-1].update(group)
    return joined


def _originals(entries: Mapping[str, Entry]) -> dict[Entry, str]:
    """What is formatted once for all speeds, with the utterance that its file is called after."""
    utterances: dict[Entry, str] = {}
    for utterance in sorted(entries, key=lambda name: (entries[name].speed != 1, name)):
        utterances.setdefault(entries[utterance].at_speed(1), utterance)
    return utterances


def _check_can_stay(entries: Mapping[str, Entry], source: Path, how: Formatting) -> None:
    """DataError where recordings can't be kept as they are, ConfigError where they shan't be."""
    if how.reading.channel is not None:
        raise ConfigError(
            f"--channel {how.reading.channel}: --format keep leaves recordings as they are, with "
            "all channels; use --format flac or ark"
        )
    archived = [utterance for utterance, entry in entries.items() if entry.is_archived]
    if 0 < len(archived) < len(entries):
        raise DataError(
            f"{where(source, archived[0])}: it is in an archive, others are not, and --format keep "
            "leaves them so; use --format flac or ark"
        )
    for utterance, entry in entries.items():
        whole = entry.at_speed(1)
        if not (whole.is_file or str(whole) == whole.source and whole.is_archived):
            raise DataError(
                f"{where(source, utterance)}: '{whole}' is a part, a channel or a pipe, which "
                "--format keep can't leave as it is; use --format flac or ark"
            )


def _is_made(part: _Part, made: Mapping[str, _Made]) -> bool:
    there = all(path.exists() for path in part.files())
    return there and all(utterance in made for utterance in part.entries)


def _format(
    parts: Sequence[_Part], shares: Path, jobs: int, share: Share | None
) -> dict[str, _Made]:
    """What became of every utterance; those of a share are kept in a file."""
    made: dict[str, _Made] = {}
    for path in sorted(shares.glob(SHARE_FILES)):
        made.update({u: _Made(*values) for u, values in read_json(path).items()})
    of_share = (share or WHOLE).of(parts)
    missing = [part for part in of_share if not _is_made(part, made)]
    new: dict[str, _Made] = {}
    for result in parallel_map(_write, missing, jobs, "format"):
        new.update(result)
    if share is not None and new:
        values = {u: [one.entry, one.samples, one.rate] for u, one in new.items()}
        write_json(shares / f"{share.index}_of_{share.number}.json", values)
    return {**made, **new}


def format_data(
    source: Path, out: Path, how: Formatting, jobs: int = 1, share: Share | None = None
) -> tuple[int, int] | None:
    """Writes a formatted data directory with ``utt2num_samples``.

    Args:
        source: a data directory.
        out: the directory to make; audio goes to ``out/audio``.
        how: format, rate and lengths.
        jobs: number of processes.
        share: only make these files; a call without a share then makes ``out``.

    Returns:
        Number of utterances kept and left out; None for a share.

    Raises:
        ConfigError: an option that the format doesn't go with.
        DataError: a recording can't be read, or not be kept as it is; no utterance would be left.
    """
    check_choice("--format", how.kind, FORMATS)
    check_choice("--text_case", how.text_case, CASES)
    data = read_data(source)
    entries = {utterance: Entry.parse(text) for utterance, text in data.recordings.items()}
    if how.kind == KEEP:
        _check_can_stay(entries, source, how)
    shares, rate = out / SHARES, how.reading.sample_rate
    originals = _originals(entries)
    by_name = {utterance: original for original, utterance in originals.items()}
    parts = _parts(by_name, source, (out / "audio").resolve(), how)
    settings = {"data": fingerprint(source), "sample_rate": rate, "format": how.kind}
    if how.reading.channel is not None:
        settings["channel"] = how.reading.channel
    targets = (path for part in parts for path in sorted(part.files()))
    begin(out / ".begun.json", settings, chain(shares.glob(SHARE_FILES), targets))
    formatted = _format(parts, shares, jobs, share)
    if share is not None:
        return None
    _check_rates(formatted, source, how)
    made = {}
    for utterance, entry in entries.items():
        one = formatted[originals[entry.at_speed(1)]]
        length = perturbed_length(one.samples, entry.speed)
        made[utterance] = (str(Entry(one.entry, speed=entry.speed)), length)
    kept = {u for u, (_, n) in made.items() if how.min_seconds <= n / rate <= how.max_seconds}
    if not kept:
        raise DataError(
            f"{source}: no utterance is between {how.min_seconds} and {how.max_seconds} s long; "
            "widen --min_seconds and --max_seconds"
        )
    write_map(out / "utt2num_samples", {u: str(made[u][1]) for u in kept})
    recordings = {utterance: entry for utterance, (entry, _) in made.items()}
    texts = {u: CASES[how.text_case](text) for u, text in data.texts.items()}
    write_data(out, DataSet(recordings, texts, data.speakers).subset(kept))
    shutil.rmtree(shares, ignore_errors=True)
    return len(kept), len(made) - len(kept)


def _check_rates(formatted: Mapping[str, _Made], source: Path, how: Formatting) -> None:
    """Says once what was resampled. DataError where recordings of another rate are to be kept."""
    rate = how.reading.sample_rate
    others = {u: one.rate for u, one in formatted.items() if one.rate != rate}
    if others and how.kind == KEEP:
        utterance = min(others)
        raise DataError(
            f"{where(source, utterance)}: sampled at {others[utterance]} Hz, {rate} Hz was "
            "expected, and --format keep leaves it so; use --format flac or ark, which resample"
        )
    for found, number in sorted(Counter(others.values()).items()):
        logger.info(
            "%s: %d of %d recordings were resampled from %d to %d Hz",
            source,
            number,
            len(formatted),
            found,
            rate,
        )
