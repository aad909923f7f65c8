"""Formatting: every recording once in one format and rate, lengths known, outliers left out."""

import logging
from pathlib import Path

from espnet_prune.config import check_choice
from espnet_prune.data.audio_io import read_audio, write_archive, write_flac
from espnet_prune.data.kaldi_dir import read_data, read_map, write_data, write_map
from espnet_prune.data.parallel import parallel_map
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import atomic_path

logger = logging.getLogger(__name__)
FORMATS = ("flac", "ark")
UTTERANCES_AN_ARCHIVE = 500


def _one_flac(job: tuple[str, str, Path, int]) -> int:
    """Writes one recording (unless it is there) and returns its number of samples."""
    utterance, entry, target, rate = job
    samples, _ = read_audio(entry, f"utterance '{utterance}'", rate)
    if not target.exists():
        with atomic_path(target) as temporary:
            write_flac(temporary, samples, rate)
    return len(samples)


def _one_archive(job: tuple[list[tuple[str, str]], Path, int]) -> dict[str, tuple[str, int]]:
    """Writes one archive and returns entry and number of samples by utterance."""
    entries, target, rate = job
    recordings = {u: read_audio(e, f"utterance '{u}'", rate)[0] for u, e in entries}
    write_archive(target, recordings, rate)
    offsets = read_map(Path(f"{target}.scp"))
    return {u: (offsets[u], len(samples)) for u, samples in recordings.items()}


def format_data(
    source: Path,
    out: Path,
    sample_rate: int,
    kind: str = "flac",
    min_seconds: float = 0.0,
    max_seconds: float = float("inf"),
    jobs: int = 1,
) -> tuple[int, int]:
    """Writes a formatted data directory with ``utt2num_samples``.

    Args:
        source: a data directory.
        out: the directory to make; audio goes to ``out/audio``.
        sample_rate: expected rate in Hz.
        kind: ``flac`` (a file an utterance) or ``ark`` (Kaldi archives).
        min_seconds: shorter utterances are left out.
        max_seconds: longer ones too.
        jobs: number of processes.

    Returns:
        Number of utterances kept and left out.

    Raises:
        DataError: a recording can't be read or has another rate; nothing would be left.
    """
    check_choice("--format", kind, FORMATS)
    data = read_data(source)
    items = list(data.recordings.items())
    folder = (out / "audio").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "flac":
        work = [(u, e, folder / f"{u}.flac", sample_rate) for u, e in items]
        lengths = parallel_map(_one_flac, work, jobs, "format")
        made = {w[0]: (str(w[2]), n) for w, n in zip(work, lengths, strict=True)}
    else:
        size = UTTERANCES_AN_ARCHIVE
        starts = range(0, len(items), size)
        work = [
            (items[s : s + size], folder / f"audio.{s // size}.ark", sample_rate) for s in starts
        ]
        made = {}
        for part in parallel_map(_one_archive, work, jobs, "format"):
            made.update(part)
    kept = [u for u, (_, n) in made.items() if min_seconds <= n / sample_rate <= max_seconds]
    if not kept:
        raise DataError(
            f"{source}: no utterance is between {min_seconds} and {max_seconds} s long; "
            "widen --min_seconds and --max_seconds"
        )
    left = data.subset(kept)
    write_map(out / "utt2num_samples", {u: str(made[u][1]) for u in kept})
    write_data(out, type(left)({u: made[u][0] for u in kept}, left.texts, left.speakers))
    return len(kept), len(items) - len(kept)
