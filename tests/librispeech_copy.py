"""A copy of LibriSpeech's layout with noise in it, for tests."""

from pathlib import Path

import numpy
import soundfile

RATE = 16000
SPEAKERS = """\
; the meaning of the fields
;ID  |SEX| SUBSET           |MINUTES| NAME
14   | F | train-clean-360  | 25.03 | A Name
22   | M | train-clean-360  | 25.14 | Another | Name
"""
FORMATS = {".flac": "FLAC", ".opus": "OGG", ".wav": "WAV"}


def write_chapter(folder: Path, utterances: int, suffix: str = ".flac") -> None:
    """``PART/SPEAKER/CHAPTER`` with recordings of 0.1 s and more."""
    folder.mkdir(parents=True)
    name = f"{folder.parent.name}-{folder.name}"
    draw = numpy.random.default_rng(int(folder.name))
    lines = []
    for number in range(utterances):
        utterance = f"{name}-{number:04d}"
        samples = draw.normal(0, 0.1, RATE // 10 + 80 * number).clip(-1, 1)
        subtype = "OPUS" if suffix == ".opus" else "PCM_16"
        path = folder / f"{utterance}{suffix}"
        soundfile.write(path, samples, RATE, format=FORMATS[suffix], subtype=subtype)
        lines.append(f"{utterance} HELLO NUMBER {number}")
    (folder / f"{name}.trans.txt").write_text("\n".join(lines) + "\n")


def write_corpus(root: Path, suffix: str = ".flac") -> Path:
    """Two parts, two readers, three chapters of two, three and four utterances."""
    write_chapter(root / "train-clean-360/14/208", 2, suffix)
    write_chapter(root / "train-clean-360/22/12", 3, suffix)
    write_chapter(root / "test-clean/22/5", 4, suffix)
    (root / "SPEAKERS.TXT").write_text(SPEAKERS)
    return root
