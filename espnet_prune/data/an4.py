"""CMU's AN4 ("census") as Kaldi data directories.

948 training utterances of 74 speakers, 130 test utterances of 10 others. The development set is
the last ``DEV_SPEAKERS`` training speakers, whole, so that no speaker is on both sides. (ESPnet's
recipe takes the first 100 utterances instead; ours is named ``train_nodev``/``dev`` alike.)
"""

import re
import shutil
from pathlib import Path

from espnet_prune.data.audio_io import read_headerless, write_audio
from espnet_prune.data.download import fetch, unpack
from espnet_prune.data.kaldi_dir import DataSet, write_data
from espnet_prune.errors import DataError, EnvironmentProblem

URL = "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz"
SAMPLE_RATE = 16000
SUFFIXES = (".flac", ".wav", ".sph", ".opus", ".raw")
LINE = re.compile(r"^(?:<s> )?(?P<text>.*?)(?: </s>)? *\((?P<id>[^()]+)\)$")
DEV_SPEAKERS = 8
COUNTS = {"train": 948, "test": 130}


def download(folder: Path) -> Path:
    """Downloads and unpacks AN4; a finished download isn't repeated.

    Raises:
        EnvironmentProblem: the site can't be reached; says what to do instead.
    """
    root = folder / "an4"
    if (root / "etc").is_dir():
        return root
    remedy = (
        "Or fetch AN4 elsewhere, unpack it, and give the folder that holds etc/ and wav/ by "
        "--an4 DIR."
    )
    archive = fetch(URL, folder / Path(URL).name, remedy)
    unpacked = unpack(archive, folder)
    try:
        (unpacked / root.name).rename(root)
    except FileNotFoundError as error:
        raise EnvironmentProblem(
            f"{archive}: it holds no folder '{root.name}', so it isn't AN4; remove it. {remedy}"
        ) from error
    finally:
        shutil.rmtree(unpacked)
    return root


def prepare(root: Path, out: Path) -> None:
    """Writes ``train_nodev``, ``dev`` and ``test``.

    Args:
        root: the folder that holds ``etc`` and ``wav``.
        out: the recipe's data folder.

    Raises:
        DataError: a list, recording or transcript is missing or malformed; names it.
    """
    root = root.resolve()
    train = _read_part(root, "train", out)
    speakers = sorted(set(train.speakers.values()))
    dev = {u for u, s in train.speakers.items() if s in speakers[-DEV_SPEAKERS:]}
    write_data(out / "train_nodev", train.subset(set(train.speakers) - dev))
    write_data(out / "dev", train.subset(dev))
    write_data(out / "test", _read_part(root, "test", out))


def _read_part(root: Path, part: str, out: Path) -> DataSet:
    recordings, texts, speakers = {}, {}, {}
    transcripts = _read_lines(root / "etc" / f"an4_{part}.transcription")
    paths = _read_lines(root / "etc" / f"an4_{part}.fileids")
    if len(transcripts) != len(paths):
        raise DataError(
            f"{root / 'etc'}: an4_{part}.transcription has {len(transcripts)} lines, "
            f"an4_{part}.fileids {len(paths)}; unpack AN4 again"
        )
    for line, relative in zip(transcripts, paths, strict=True):
        match = LINE.match(line)
        name = Path(relative).name
        if match is None or match["id"] != name:
            raise DataError(
                f"{root / 'etc'}/an4_{part}.transcription: '{line}' doesn't end in ({name})"
            )
        speaker = Path(relative).parent.name
        utterance = f"{speaker}-{name}"
        recordings[utterance] = str(_recording(root, relative, out))
        texts[utterance] = match["text"].strip()
        speakers[utterance] = speaker
    if len(texts) != COUNTS[part]:
        raise DataError(
            f"{root}: {len(texts)} {part} utterances, AN4 has {COUNTS[part]}; unpack it again"
        )
    return DataSet(recordings, texts, speakers)


def _read_lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; --an4 must be the folder that holds etc/ and wav/"
        ) from error


def _recording(root: Path, relative: str, out: Path) -> Path:
    """The recording's path; headerless ones are converted once."""
    for suffix in SUFFIXES:
        path = root / "wav" / f"{relative}{suffix}"
        if not path.is_file():
            continue
        if suffix != ".raw":
            return path
        target = out / "converted" / f"{relative}.flac"  # a file's name may come twice
        if not target.exists():
            write_audio(target, read_headerless(path), SAMPLE_RATE)
        return target.resolve()
    raise DataError(f"{root / 'wav' / relative}: no recording with a suffix of {SUFFIXES}")
