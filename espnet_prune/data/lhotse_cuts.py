"""A set of lhotse's cuts (``cuts.jsonl.gz``, or a folder of Shar) as a Kaldi data directory.

A cut of a file becomes a part of that file. Whatever lhotse computes (mixed, padded, augmented or
stored within the set) is computed once, and written as FLAC.
"""

import io
from pathlib import Path
from typing import Any

import numpy
import soundfile

from espnet_prune.data.collection import Collection
from espnet_prune.data.entry import Entry
from espnet_prune.errors import DataError, EnvironmentProblem

DATA_CUTS = ("MonoCut", "MultiCut")  # lhotse's classes of what is a part of one recording
DIGITS = 6  # of seconds: lhotse adds up floating-point numbers
WHOLE_SECONDS = 1e-3  # by which a cut may end before its recording and still be all of it


def collect_cuts(cuts: Path, out: Path) -> int:
    """Writes a data directory of all supervisions.

    Args:
        cuts: a manifest of cuts, or a folder of Shar.
        out: the directory to make.

    Returns:
        Number of utterances.

    Raises:
        DataError: it isn't that; an utterance can't be used.
        EnvironmentProblem: lhotse is missing.
    """
    found = Collection(cuts, out)
    for cut in _open(cuts):
        computed = None
        for supervision in cut.supervisions:
            name = found.name_of(supervision.id)
            try:
                entry = _entry_of(cut, supervision, cuts)
                if entry is None:
                    computed = cut.load_audio() if computed is None else computed
                    content = _flac_of(cut, supervision, computed)
                    entry = found.keep(name, content, ".flac")
            except Exception as error:  # lhotse raises errors of many classes
                raise DataError(
                    f"{cuts}: '{supervision.id}' of cut '{cut.id}' can't be read ({error}); leave "
                    "it out"
                ) from error
            found.add(name, entry, supervision.text, supervision.speaker)
    return found.write()


def _open(path: Path):
    try:
        from lhotse import CutSet
    except ImportError as error:
        raise EnvironmentProblem(
            "lhotse is missing; install the extra: pip install 'espnet_prune[lhotse]'"
        ) from error
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder of cuts")
    try:
        cuts = CutSet.from_shar(in_dir=path) if path.is_dir() else CutSet.from_file(path)
        if not isinstance(cuts, CutSet):
            raise TypeError(f"it holds {type(cuts).__name__}")
    except Exception as error:  # lhotse raises errors of many classes
        raise DataError(
            f"{path}: can't be read as cuts of lhotse ({error}); give cuts.jsonl.gz or a folder "
            "that CutSet.to_shar wrote"
        ) from error
    return cuts


def _entry_of(cut: Any, supervision: Any, manifest: Path) -> str | None:
    """The part of a file, or of a command's output, that is supervised; None where it is more."""
    recording = getattr(cut, "recording", None)
    if type(cut).__name__ not in DATA_CUTS or recording is None or recording.transforms:
        return None
    channel = cut.channel if isinstance(cut.channel, int) else supervision.channel
    if not isinstance(channel, int):
        return None
    if len(recording.sources) != 1 or recording.sources[0].type not in ("file", "command"):
        return None
    source = recording.sources[0]
    text = f"{source.source} |" if source.type == "command" else _path_of(source.source, manifest)
    first = cut.start + max(0.0, supervision.start)
    last = cut.start + min(cut.duration, supervision.end)
    end = None if last > recording.duration - WHOLE_SECONDS else round(last, DIGITS)
    number = channel + 1 if recording.num_channels > 1 else None
    return str(Entry(text, number, round(first, DIGITS), end))


def _path_of(path: str, manifest: Path) -> str:
    """A path is relative to where the program runs, or to the manifest."""
    beside = manifest.parent / path
    return str((beside if not Path(path).exists() and beside.exists() else Path(path)).resolve())


def _flac_of(cut: Any, supervision: Any, samples: numpy.ndarray) -> bytes:
    """What is supervised of a cut's samples (channels, samples)."""
    channels = cut.channel if isinstance(getattr(cut, "channel", None), list) else [None]
    row = channels.index(supervision.channel) if supervision.channel in channels else 0
    if len(samples) != 1 and supervision.channel not in channels:
        raise ValueError(f"{len(samples)} channels, of which {supervision.channel} was expected")
    rate = cut.sampling_rate
    first, last = (round(t * rate) for t in (max(0.0, supervision.start), supervision.end))
    file = io.BytesIO()
    clipped = numpy.clip(samples[row][first:last], -1, 1 - 2**-15)
    soundfile.write(file, clipped, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
