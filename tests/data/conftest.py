"""Small data directories for the tests of the data room."""

from pathlib import Path

import numpy
import pytest
import soundfile

from espnet_prune.data.kaldi_dir import DataSet, write_data

SAMPLE_RATE = 16000


@pytest.fixture
def make_data():
    """A function that makes a data directory with one noise recording an utterance."""

    def make(folder: Path, seconds: dict[str, float], rate: int = SAMPLE_RATE, suffix=".wav"):
        draw = numpy.random.default_rng(0)
        recordings = {}
        for utterance, length in seconds.items():
            path = folder / "source" / f"{utterance}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = draw.normal(0, 3000, int(length * rate)).astype(numpy.int16)
            soundfile.write(path, samples, rate)
            recordings[utterance] = str(path)
        write_data(
            folder,
            DataSet(
                recordings,
                {u: f"WORD {u.upper()}" for u in seconds},
                {u: u.split("-")[0] for u in seconds},
            ),
        )
        return folder

    return make


@pytest.fixture
def data(tmp_path, make_data):
    """A directory of four utterances of two speakers."""
    return make_data(tmp_path / "data", {"a-1": 0.2, "a-2": 0.3, "b-1": 0.4, "b-2": 0.5})
