"""Speed perturbation by resampling: three-fold training data for factors 0.9, 1.0, 1.1.

Source: Ko et al. 2015, "Audio augmentation for speech recognition". Pitch and tempo change
together; the resampling is soxr's.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy
import soxr

from espnet_prune.config import check_range
from espnet_prune.data.audio_io import read_audio, write_audio
from espnet_prune.data.kaldi_dir import DataSet, read_data, where, write_data
from espnet_prune.data.parallel import WHOLE, Share, parallel_map
from espnet_prune.data.resume import begin, fingerprint
from espnet_prune.errors import ConfigError


def perturb(samples: numpy.ndarray, factor: float, sample_rate: int) -> numpy.ndarray:
    """Samples (n,) int16, played ``factor`` times as fast, about (n / factor,)."""
    return soxr.resample(samples, sample_rate * factor, sample_rate).astype(numpy.int16)


@dataclass(frozen=True)
class _Job:
    """One recording to make; ``place`` names the original in errors."""

    place: str
    entry: str
    factor: float
    target: Path


def _make(job: _Job) -> None:
    if not job.target.exists():
        samples, rate = read_audio(job.entry, job.place)
        write_audio(job.target, perturb(samples, job.factor, rate), rate)


def perturb_data(
    source: Path,
    out: Path,
    audio: Path,
    factors: list[float],
    jobs: int = 1,
    share: Share | None = None,
) -> DataSet:
    """Writes a data directory with a copy of every utterance at every speed.

    Args:
        source: a data directory.
        out: the directory to make; ``sp0.9-`` goes before utterances and speakers, nothing
            before those of factor 1.
        audio: folder of the new recordings; those of an unfinished run are kept.
        factors: speeds, each once.
        jobs: number of processes.
        share: only make these recordings; a call without a share then makes ``out``.

    Returns:
        What ``out`` holds, or will.

    Raises:
        ConfigError: a factor twice or out of range.
        DataError: a recording can't be read.
    """
    if len(set(factors)) != len(factors):
        raise ConfigError(f"--factors {factors}: a factor comes twice")
    data = read_data(source)
    recordings, texts, speakers = {}, {}, {}
    work = []
    for factor in factors:
        check_range("--factors", factor, 0.5, 2.0)
        prefix = "" if factor == 1 else f"sp{factor:g}-"
        for utterance, entry in data.recordings.items():
            name = prefix + utterance
            if factor != 1:
                target = (audio / f"{name}.flac").resolve()
                work.append(_Job(where(source, utterance), entry, factor, target))
                entry = str(target)
            recordings[name] = entry
            texts[name] = data.texts[utterance]
            speakers[name] = prefix + data.speakers[utterance]
    begin(
        audio / f".{out.name}.begun.json", {"data": fingerprint(source)}, (j.target for j in work)
    )
    parallel_map(_make, (share or WHOLE).of(work), jobs, "speed")
    perturbed = DataSet(recordings, texts, speakers)
    if share is None:
        write_data(out, perturbed)
    return perturbed
