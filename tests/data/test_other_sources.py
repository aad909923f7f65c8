"""Sets of lhotse and of Hugging Face as Kaldi data directories."""

import io
import re

import numpy
import pytest
import soundfile

from espnet_prune.cli import main
from espnet_prune.data.audio_io import examine
from espnet_prune.data.excerpt import Reading
from espnet_prune.data.kaldi_dir import read_data, read_map

RATE = 16000


def noise(seed: int, samples: int = RATE) -> numpy.ndarray:
    return numpy.random.default_rng(seed).normal(0, 3000, samples).astype(numpy.int16)


def samples_of(folder, utterance: str) -> numpy.ndarray:
    return examine(read_data(folder).recordings[utterance], "here", Reading(pipes=True)).samples


@pytest.fixture
def talk(tmp_path):
    """A recording of two channels with three supervisions, and one of one channel."""
    lhotse = pytest.importorskip("lhotse")
    both = numpy.stack([noise(0, 3 * RATE), noise(1, 3 * RATE)], axis=1)
    soundfile.write(tmp_path / "talk.wav", both, RATE)
    soundfile.write(tmp_path / "one.flac", noise(2), RATE)
    supervisions = [
        lhotse.SupervisionSegment("s/1", "talk", 0.5, 1.0, 0, "ONE", speaker="anna b"),
        lhotse.SupervisionSegment("s2", "talk", 1.75, 1.25, 0, "TWO  TWO", speaker="otto"),
        lhotse.SupervisionSegment("s3", "talk", 0.0, 3.0, 1, "THREE"),
        lhotse.SupervisionSegment("s4", "one", 0.0, 1.0, 0, "FOUR", speaker="otto"),
        lhotse.SupervisionSegment("s5", "one", 0.0, 0.5, 0, None),
    ]
    files = {"talk": "talk.wav", "one": "one.flac"}
    recordings = [
        lhotse.Recording.from_file(tmp_path / f, recording_id=r) for r, f in files.items()
    ]
    return lhotse.CutSet.from_manifests(
        lhotse.RecordingSet.from_recordings(recordings),
        lhotse.SupervisionSet.from_segments(supervisions),
    )


def prepare_cuts(cuts, out) -> int:
    return main(["prepare_lhotse", "--cuts", str(cuts), "--out", str(out)])


def check(out) -> None:
    data = read_data(out)
    assert data.texts == {"s2": "TWO TWO", "s3": "THREE", "s4": "FOUR", "s_1": "ONE"}
    assert data.speakers == {"s2": "otto", "s3": "s3", "s4": "otto", "s_1": "anna_b"}
    expected = {
        "s_1": noise(0, 3 * RATE)[RATE // 2 : 3 * RATE // 2],
        "s2": noise(0, 3 * RATE)[7 * RATE // 4 :],
        "s3": noise(1, 3 * RATE),
        "s4": noise(2),
    }
    for utterance, samples in expected.items():
        numpy.testing.assert_array_equal(samples_of(out, utterance), samples)
    assert main(["validate_data", str(out)]) == 0


def test_cuts_are_parts_of_their_files(talk, tmp_path, caplog):
    talk.to_file(tmp_path / "cuts.jsonl.gz")
    out = tmp_path / "data"
    assert prepare_cuts(tmp_path / "cuts.jsonl.gz", out) == 0
    check(out)
    assert not (out / "audio").exists(), "nothing is copied"
    assert "1 utterances have no text and are left out, the first is 's5'" in caplog.text
    before = (out / "wav.scp").stat().st_mtime_ns
    assert prepare_cuts(tmp_path / "cuts.jsonl.gz", out) == 0
    assert (out / "wav.scp").stat().st_mtime_ns == before


def test_shar_is_written_as_flac(talk, tmp_path):
    cuts = talk.trim_to_supervisions(keep_overlapping=False)
    (tmp_path / "shar").mkdir()
    cuts.to_shar(tmp_path / "shar", {"recording": "flac"}, shard_size=2)
    assert prepare_cuts(tmp_path / "shar", tmp_path / "data") == 0
    check(tmp_path / "data")


def test_what_lhotse_computes_is_computed_once(talk, tmp_path):
    cuts = talk.filter(lambda cut: cut.recording_id == "one")
    cuts.perturb_volume(0.5, affix_id=False).to_file(tmp_path / "cuts.jsonl")
    assert prepare_cuts(tmp_path / "cuts.jsonl", tmp_path / "data") == 0
    (utterance,) = read_data(tmp_path / "data").texts
    assert numpy.abs(samples_of(tmp_path / "data", utterance) - noise(2) / 2).max() <= 1


def test_what_is_no_set_of_cuts_is_named(tmp_path, capsys):
    pytest.importorskip("lhotse")
    (tmp_path / "cuts.jsonl").write_text("no cuts\n")
    for path, message in (
        ("cuts.jsonl", "can't be read as cuts"),
        ("gone", "there is no such file"),
    ):
        assert prepare_cuts(tmp_path / path, tmp_path / "data") == 2
        error = capsys.readouterr().err
        assert f"{tmp_path / path}: {message}" in error and "Traceback" not in error


def encoded(samples: numpy.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=kind)
    return file.getvalue()


@pytest.fixture
def rows(tmp_path):
    """A data set of three rows: two within it, one in a file."""
    datasets = pytest.importorskip("datasets")
    soundfile.write(tmp_path / "c.wav", noise(2), RATE)
    table = {
        "audio": [
            {"bytes": encoded(noise(0), "FLAC"), "path": "a.flac"},
            {"bytes": encoded(noise(1), "WAV"), "path": None},
            {"bytes": None, "path": str(tmp_path / "c.wav")},
        ],
        "sentence": ["ONE", "TWO", "THREE"],
        "client": [7, 8, 7],
    }
    return datasets.Dataset.from_dict(table).cast_column("audio", datasets.Audio())


def prepare_rows(folder, out, *options: str) -> int:
    words = ["--dataset", str(folder), "--out", str(out), "--text", "sentence", *options]
    return main(["prepare_hugging_face", *words])


@pytest.mark.parametrize("form", ["saved", "splits", "parquet"])
def test_rows_become_utterances(rows, tmp_path, form):
    folder = tmp_path / "set"
    if form == "saved":
        rows.save_to_disk(str(folder))
    elif form == "splits":
        pytest.importorskip("datasets").DatasetDict(train=rows).save_to_disk(str(folder))
    else:
        folder.mkdir()
        rows.to_parquet(folder / "train-00000-of-00001.parquet")
    out = tmp_path / "data"
    assert prepare_rows(folder, out, "--speaker", "client") == 0
    names = [f"train-{number:08d}" for number in range(3)]
    assert read_data(out).texts == dict(zip(names, ("ONE", "TWO", "THREE"), strict=True))
    assert read_map(out / "spk2utt") == {"7": f"{names[0]} {names[2]}", "8": names[1]}
    for number, name in enumerate(names):
        numpy.testing.assert_array_equal(samples_of(out, name), noise(number))
    assert main(["validate_data", str(out)]) == 0
    assert prepare_rows(folder, out, "--speaker", "client") == 0  # done
    assert prepare_rows(folder, out) == 2  # another configuration


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--text", "sentences"],
            "no column 'sentences' \\(did you mean 'sentence'\\?\\)",
        ),
        (["--audio", "client"], "--audio: column 'client' of .*expected Audio"),
        (["--split", "test"], "--split: .* has no 'test'.*it has train"),
        (["--id", "client"], "'7' becomes the utterance ID '7', which is empty or another's"),
    ],
)
def test_wrong_columns_and_splits_are_named(rows, tmp_path, capsys, options, message):
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict(train=rows).save_to_disk(str(tmp_path / "set"))
    assert prepare_rows(tmp_path / "set", tmp_path / "data", *options) == 2
    assert re.search(message, capsys.readouterr().err)


def test_what_is_no_data_set_is_named(tmp_path, capsys):
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    for name, message in (
        ("set", "can't be read as a data set"),
        ("gone", "there is no such folder"),
    ):
        assert prepare_rows(tmp_path / name, tmp_path / "data") == 2
        error = capsys.readouterr().err
        assert f"{tmp_path / name}: {message}" in error and "Traceback" not in error
