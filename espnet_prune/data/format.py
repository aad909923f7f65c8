"""Formatting: recordings in one format and rate, or kept; lengths known, outliers left out.

Kept recordings are decoded once nevertheless, so that no damage is met in training.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from espnet_prune.config import check_choice
from espnet_prune.data.audio_io import ARCHIVE_ENTRY, read_audio, write_archive, write_audio
from espnet_prune.data.kaldi_dir import DataSet, read_data, where, write_data, write_map
from espnet_prune.data.parallel import WHOLE, Share, parallel_map
from espnet_prune.data.resume import begin, fingerprint
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import read_json, write_json

KEEP = "keep"
FORMATS = ("flac", "ark", KEEP)
CASES = {"keep": str, "lower": str.lower, "upper": str.upper}
UTTERANCES_AN_ARCHIVE = 500
SHARES, SHARE_FILES = ".shares", "[0-9]*.json"  # not those half written, which begin with a dot


@dataclass(frozen=True)
class _Part:
    """Recordings that go into one file: wav.scp entry by utterance, of ``source``."""

    source: Path
    entries: dict[str, str]
    target: Path
    sample_rate: int
    kind: str


def _write(part: _Part) -> dict[str, tuple[str, int]]:
    """Writes one file; returns the new entry and the number of samples by utterance."""
    recordings = {
        utterance: read_audio(entry, where(part.source, utterance), part.sample_rate)[0]
        for utterance, entry in part.entries.items()
    }
    if part.kind == "ark":  # its offsets are only known by writing it
        entries = write_archive(part.target, recordings, part.sample_rate)
    elif part.kind == KEEP:
        entries = {u: str(Path(e).resolve()) for u, e in part.entries.items()}
    else:
        entries = {utterance: str(part.target) for utterance in recordings}
        if not part.target.exists():
            for samples in recordings.values():
                write_audio(part.target, samples, part.sample_rate)
    return {u: (entries[u], len(samples)) for u, samples in recordings.items()}


def _parts(data: DataSet, source: Path, audio: Path, sample_rate: int, kind: str) -> list[_Part]:
    items = sorted(data.recordings.items())
    size = UTTERANCES_AN_ARCHIVE if kind == "ark" else 1
    parts = []
    for start in range(0, len(items), size):
        chosen = dict(items[start : start + size])
        name = f"audio.{start // size}.ark" if kind == "ark" else f"{next(iter(chosen))}.flac"
        parts.append(_Part(source, chosen, audio / name, sample_rate, kind))
    return parts


def _check_alike(data: DataSet, source: Path) -> None:
    """DataError where some recordings are in archives and others are not."""
    archived = [u for u, entry in data.recordings.items() if ARCHIVE_ENTRY.match(entry)]
    if 0 < len(archived) < len(data.recordings):
        raise DataError(
            f"{where(source, archived[0])}: it is in an archive, others are not, and --format keep "
            "leaves them so; use --format flac or ark"
        )


def _is_made(part: _Part, made: Mapping[str, tuple[str, int]]) -> bool:
    there = part.kind == KEEP or part.target.exists()
    return there and all(utterance in made for utterance in part.entries)


def _format(
    parts: Sequence[_Part], shares: Path, jobs: int, share: Share | None
) -> dict[str, tuple[str, int]]:
    """Entry and number of samples of every utterance; those of a share are kept in a file."""
    made: dict[str, tuple[str, int]] = {}
    for path in sorted(shares.glob(SHARE_FILES)):
        made.update({u: (entry, samples) for u, (entry, samples) in read_json(path).items()})
    of_share = (share or WHOLE).of(parts)
    missing = [part for part in of_share if not _is_made(part, made)]
    new: dict[str, tuple[str, int]] = {}
    for result in parallel_map(_write, missing, jobs, "format"):
        new.update(result)
    if share is not None and new:
        write_json(shares / f"{share.index}_of_{share.number}.json", new)
    return {**made, **new}


def format_data(
    source: Path,
    out: Path,
    sample_rate: int,
    kind: str = "flac",
    min_seconds: float = 0.0,
    max_seconds: float = float("inf"),
    jobs: int = 1,
    share: Share | None = None,
    text_case: str = "keep",
) -> tuple[int, int] | None:
    """Writes a formatted data directory with ``utt2num_samples``.

    Args:
        source: a data directory.
        out: the directory to make; audio goes to ``out/audio``.
        sample_rate: expected rate in Hz.
        kind: ``flac`` (a file an utterance), ``ark`` (Kaldi archives), or ``keep`` (the recordings
            that the source names, whatever their format).
        min_seconds: shorter utterances are left out.
        max_seconds: longer ones too.
        jobs: number of processes.
        share: only make these files; a call without a share then makes ``out``.
        text_case: of the transcripts: ``keep``, ``lower`` or ``upper``.

    Returns:
        Number of utterances kept and left out; None for a share.

    Raises:
        DataError: a recording can't be read or has another rate; no utterance would be left;
            recordings to keep are partly in archives.
    """
    check_choice("--format", kind, FORMATS)
    check_choice("--text_case", text_case, CASES)
    data = read_data(source)
    if kind == KEEP:
        _check_alike(data, source)
    shares = out / SHARES
    parts = _parts(data, source, (out / "audio").resolve(), sample_rate, kind)
    settings = {"data": fingerprint(source), "sample_rate": sample_rate, "format": kind}
    targets = (part.target for part in parts)
    begin(out / ".begun.json", settings, chain(shares.glob(SHARE_FILES), targets))
    made = _format(parts, shares, jobs, share)
    if share is not None:
        return None
    kept = {u for u, (_, n) in made.items() if min_seconds <= n / sample_rate <= max_seconds}
    if not kept:
        raise DataError(
            f"{source}: no utterance is between {min_seconds} and {max_seconds} s long; "
            "widen --min_seconds and --max_seconds"
        )
    write_map(out / "utt2num_samples", {u: str(made[u][1]) for u in kept})
    entries = {u: entry for u, (entry, _) in made.items()}
    texts = {u: CASES[text_case](text) for u, text in data.texts.items()}
    write_data(out, DataSet(entries, texts, data.speakers).subset(kept))
    shutil.rmtree(shares, ignore_errors=True)
    return len(kept), len(made) - len(kept)
