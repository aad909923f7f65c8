"""Noise at a ratio: powers in closed form, the same anew, babble of others alone."""

from pathlib import Path

import numpy
import pytest

from espnet_prune.cli import run
from espnet_prune.data.audio_io import read_audio, write_audio
from espnet_prune.data.kaldi_dir import DataSet, read_data, read_map, write_data
from espnet_prune.data.noise import Noise, mixed
from espnet_prune.data.validate import validate
from espnet_prune.errors import ConfigError, DataError

RATE = 16000


def write_set(folder: Path, speakers: int = 3, loud: float = 3000.0) -> Path:
    """A set of one tone a speaker."""
    recordings = {}
    for number in range(speakers):
        path = folder / "audio" / f"s{number}-a.wav"
        time = numpy.arange(RATE // 2 + 100 * number) / RATE
        tone = loud * numpy.sin(2 * numpy.pi * 300 * (number + 1) * time)
        write_audio(path, tone.astype(numpy.int16), RATE)
        recordings[f"s{number}-a"] = str(path)
    names = {utterance: utterance.partition("-")[0] for utterance in recordings}
    write_data(folder, DataSet(recordings, dict.fromkeys(recordings, "HI"), names))
    return folder


def noisy(source: Path, out: Path, *options: str) -> dict[str, numpy.ndarray]:
    run(["add_noise", "--source", str(source), "--out", str(out), *options])
    return {u: read_audio(e, u)[0].astype(float) for u, e in read_data(out).recordings.items()}


def test_the_noise_has_the_power_that_the_ratio_says():
    speech, noise = numpy.array([3.0, -4.0]), numpy.array([1.0, 1.0])
    assert mixed(speech, noise, 0.0) - speech == pytest.approx([12.5**0.5] * 2)
    assert mixed(speech, noise, 20.0) - speech == pytest.approx([0.125**0.5] * 2)
    assert mixed(numpy.zeros(2), noise, 0.0).tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["white", "babble"])
def test_a_set_in_noise_is_whole_the_same_anew_and_has_the_ratio(tmp_path, kind):
    source = write_set(tmp_path / "clean")
    options = ("--kind", kind, "--snr", "10", "--talkers", "2")
    found = noisy(source, tmp_path / "a", *options, "--nj", "2")
    validate(tmp_path / "a")
    assert (tmp_path / "a" / "text").read_text() == (source / "text").read_text()
    for utterance, entry in read_data(source).recordings.items():
        clean = read_audio(entry, utterance)[0].astype(float)
        ratio = numpy.mean(clean**2) / numpy.mean((found[utterance] - clean) ** 2)
        assert 10 * numpy.log10(ratio) == pytest.approx(10, abs=0.02)
        assert read_map(tmp_path / "a" / "utt2num_samples")[utterance] == str(len(clean))
    again = noisy(source, tmp_path / "b", *options)
    assert all(numpy.array_equal(found[u], again[u]) for u in found)
    other = noisy(source, tmp_path / "c", *options, "--seed", "1")
    if kind == "white":
        assert not any(numpy.array_equal(found[u], other[u]) for u in found)


def test_babble_is_of_the_others(tmp_path):
    source = write_set(tmp_path / "clean")
    found = noisy(source, tmp_path / "out", "--kind", "babble", "--snr", "0", "--talkers", "2")
    clean = read_audio(read_data(source).recordings["s0-a"], "")[0].astype(float)
    rest = numpy.abs(numpy.fft.rfft(found["s0-a"] - clean))
    hertz = numpy.fft.rfftfreq(len(clean), 1 / RATE)
    assert sorted(hertz[numpy.argsort(rest)[-2:]]) == pytest.approx([600, 900], abs=4)


def test_what_would_be_too_loud_is_made_quieter_and_not_clipped(tmp_path):
    found = noisy(write_set(tmp_path / "clean", loud=32000.0), tmp_path / "out",
                  "--kind", "white", "--snr", "0")  # fmt: skip
    for samples in found.values():
        assert numpy.abs(samples).max() == 32767
        assert (numpy.abs(samples) == 32767).sum() == 1


def test_one_speaker_can_t_babble(tmp_path):
    with pytest.raises(DataError, match="nobody but 's0' speaks"):
        noisy(write_set(tmp_path / "clean", 1), tmp_path / "out", "--kind", "babble", "--snr", "0")


@pytest.mark.parametrize(
    "options, named", [({"kind": "pink"}, "--kind"), ({"talkers": 0}, "--talkers")]
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ConfigError, match=named):
        Noise(**{"kind": "white", "snr_db": 0.0, **options})
