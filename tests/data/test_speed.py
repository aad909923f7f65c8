"""Speed perturbation: the signal, the directory that names it, and what training reads of it."""

import espnet_prune.models.espnet.choices  # noqa: F401  isort: skip  (stubs before ESPnet)
import re
from pathlib import Path

import numpy
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from espnet_prune.cli import main
from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.kaldi_dir import read_data, read_map
from espnet_prune.data.speed import perturb, perturbed_length
from espnet_prune.data.validate import validate
from espnet_prune.train import archives

FACTORS = ("0.9", "1.0", "1.1")


def speed(source: Path, out: Path, *factors: str) -> int:
    words = ["--source", str(source), "--out", str(out), "--factors", *factors]
    return main(["perturb_speed", *words])


def format_to(source: Path, out: Path, *options: str) -> int:
    return main(["format_audio", "--source", str(source), "--out", str(out), *options])


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_tone_becomes_shorter_and_higher_by_the_factor(factor):
    hertz, rate = 500, 16000
    tone = (8000 * numpy.sin(2 * numpy.pi * hertz * numpy.arange(rate) / rate)).astype(numpy.int16)
    made = perturb(tone, factor, rate)
    assert len(made) == pytest.approx(rate / factor, abs=2)
    peak = numpy.abs(numpy.fft.rfft(made)).argmax() * rate / len(made)
    assert peak == pytest.approx(hertz * factor, abs=2)


@given(st.integers(1, 4000), st.floats(0.5, 2.0), st.sampled_from([8000, 16000, 44100]))
def test_the_length_is_known_beforehand(samples, factor, rate):
    made = perturb(numpy.ones(samples, numpy.int16), factor, rate)
    assert len(made) == perturbed_length(samples, factor)


def test_every_utterance_at_every_speed_without_a_copy(data, tmp_path):
    out = tmp_path / "sp"
    assert speed(data, out, *FACTORS) == 0
    made, holding = validate(out)
    assert len(made.texts) == 12
    assert made.texts["sp0.9-a-1"] == made.texts["a-1"] == "WORD A-1"
    assert made.speakers["sp1.1-b-2"] == "sp1.1-b"
    source = read_data(data).recordings["a-1"]
    assert made.recordings["a-1"] == source and made.recordings["sp0.9-a-1"].endswith(source)
    assert holding.seconds == pytest.approx(1.4 * (1 + 1 / 0.9 + 1 / 1.1), abs=0.01)
    samples, rate = read_audio(source, "here")
    faster, _ = read_audio(made.recordings["sp1.1-a-1"], "here")
    numpy.testing.assert_array_equal(faster, perturb(samples, 1.1, rate))
    assert not list(out.rglob("*.flac")) and not list(out.rglob("*.wav"))


def test_sets_with_the_same_utterances_keep_their_own_audio(make_data, tmp_path):
    """Copies were once called after the utterance alone, and the second set took the first's."""
    lengths = {"one": 0.2, "two": 0.5}
    for name, seconds in lengths.items():
        make_data(tmp_path / name, {"a-1": seconds})
        assert speed(tmp_path / name, tmp_path / f"{name}_sp", "0.9") == 0
        assert format_to(tmp_path / f"{name}_sp", tmp_path / f"dump/{name}_sp") == 0
    for name, seconds in lengths.items():
        ((_, entry),) = read_data(tmp_path / f"dump/{name}_sp").recordings.items()
        assert len(read_audio(entry, "here")[0]) == perturbed_length(int(seconds * 16000), 0.9)


@pytest.mark.parametrize("kind", ["flac", "ark", "keep"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_formatting_writes_each_recording_once_for_all_speeds(data, tmp_path, kind, jobs):
    assert speed(data, tmp_path / "sp", *FACTORS) == 0
    out = tmp_path / "dump"
    assert format_to(tmp_path / "sp", out, "--format", kind, "--nj", jobs) == 0
    files = [path for path in out.rglob("*") if path.suffix in (".flac", ".ark")]
    assert len(files) == {"flac": 4, "ark": 1, "keep": 0}[kind]
    originals = read_data(data).recordings
    lengths, made = read_map(out / "utt2num_samples"), read_data(out)
    assert len(made.recordings) == 12
    for utterance, entry in made.recordings.items():
        factor, name = re.fullmatch(r"(?:sp([\d.]+)-)?(.+)", utterance).groups(default="1")
        expected = perturb(read_audio(originals[name], "here")[0], float(factor), 16000)
        numpy.testing.assert_array_equal(read_audio(entry, "here")[0], expected)
        assert int(lengths[utterance]) == len(expected)


def test_the_length_filter_counts_what_is_heard(data, tmp_path):
    assert speed(data, tmp_path / "sp", "0.5", "1", "2") == 0
    out = tmp_path / "dump"
    assert format_to(tmp_path / "sp", out, "--min_seconds", "0.25", "--max_seconds", "0.41") == 0
    kept = ["a-2", "b-1", "sp0.5-a-1", "sp2.0-b-2"]
    assert [name.replace("sp2-", "sp2.0-") for name in read_data(out).texts] == kept


@pytest.mark.parametrize(
    ("factors", "message"),
    [(["0.9", "0.9"], "a factor comes twice"), (["3"], "--factors: 3.0 is out of range")],
)
def test_wrong_factors_are_named(data, tmp_path, capsys, factors, message):
    assert speed(data, tmp_path / "sp", *factors) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sp").exists()


def test_a_set_that_is_perturbed_already_is_not_perturbed_twice_by_mistake(data, tmp_path, capsys):
    assert speed(data, tmp_path / "sp", *FACTORS) == 0
    assert speed(tmp_path / "sp", tmp_path / "again", *FACTORS) == 2
    assert "'sp0.9-a-1' would be two utterances" in capsys.readouterr().err


def test_finished_speed_with_other_factors_is_an_error(data, tmp_path, capsys):
    assert speed(data, tmp_path / "sp", "0.9") == 0
    assert speed(data, tmp_path / "sp", "0.9") == 0
    assert speed(data, tmp_path / "sp", "1.1") == 2
    error = capsys.readouterr().err
    assert "factors" in error and "Use another --work_dir, or remove this folder" in error


@pytest.fixture
def formatted(data, tmp_path):
    """A dump folder of 12 utterances of three speeds."""
    assert speed(data, tmp_path / "sp", *FACTORS) == 0
    assert format_to(tmp_path / "sp", tmp_path / "dump") == 0
    return tmp_path / "dump"


def test_training_reads_the_samples_that_copies_would_hold(formatted, data, tmp_path):
    """By both of ESPnet's ways: by utterance, as in training, and line by line, for statistics."""
    from espnet2.train import dataset, iterable_dataset

    archives.register()
    entries = read_map(formatted / "wav.scp")
    kind = archives.kind_of(entries)
    loader = dataset.DATA_TYPES[kind]["func"](str(formatted / "wav.scp"))
    by_line = iterable_dataset.DATA_TYPES[kind]
    assert list(loader) == list(entries)
    for utterance, entry in entries.items():
        copy = tmp_path / "copy.flac"
        soundfile.write(copy, read_audio(entry, "here")[0], 16000)
        expected, _ = soundfile.read(copy, dtype="float32")
        numpy.testing.assert_array_equal(loader[utterance], expected)
        numpy.testing.assert_array_equal(by_line(entry), expected)


def test_other_programs_fail_on_another_speed_instead_of_reading_the_original(formatted):
    entry = read_map(formatted / "wav.scp")["sp0.9-a-1"]
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(entry)
