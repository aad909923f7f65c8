"""Stages 3 and 4: format and tokens, their errors, and what a second run does."""

import errno
import re
from pathlib import Path

import numpy
import pytest
import soundfile

from espnet_prune.cli import main
from espnet_prune.data import audio_io
from espnet_prune.data import format as formatting
from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.kaldi_dir import read_data, read_map
from espnet_prune.data.tokens import check_tokens
from espnet_prune.data.validate import validate
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.io_atomic import read_json


def format_to(data: Path, out: Path, *options: str) -> int:
    return main(["format_audio", "--source", str(data), "--out", str(out), *options])


def tokens(text: Path, out: Path, *options: str) -> int:
    return main(["make_tokens", "--text", str(text), "--out", str(out), *options])


def audio_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.suffix in (".flac", ".ark", ".tmp"))


def damage(data: Path, utterance: str) -> None:
    (data / "source" / f"{utterance}.wav").write_bytes(b"damaged")


# Format


@pytest.mark.parametrize("kind", ["flac", "ark"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_formatted_samples_are_the_same(data, tmp_path, monkeypatch, kind, jobs):
    monkeypatch.setattr(formatting, "UTTERANCES_AN_ARCHIVE", 1)
    out = tmp_path / "dump, a" / "set"
    assert format_to(data, out, "--format", kind, "--nj", jobs) == 0
    made, _ = validate(out)
    lengths = read_map(out / "utt2num_samples")
    for utterance, entry in read_data(data).recordings.items():
        before, _ = read_audio(entry, "before")
        after, _ = read_audio(made.recordings[utterance], "after")
        numpy.testing.assert_array_equal(before, after)
        assert int(lengths[utterance]) == len(before)
    assert len(audio_files(out)) == 4


@pytest.mark.parametrize("kind", ["flac", "ark", "keep"])
def test_shares_of_format_are_what_the_call_without_one_puts_together(
    data, tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(formatting, "UTTERANCES_AN_ARCHIVE", 1)
    whole, out = tmp_path / "whole", tmp_path / "dump"
    options = ["--format", kind, "--min_seconds", "0.25"]
    assert format_to(data, whole, *options) == 0
    for index in (3, 1, 2):
        assert format_to(data, out, *options, "--part", f"{index}/3") == 0
        assert not (out / "wav.scp").exists()
    with monkeypatch.context() as context:
        context.setattr(formatting, "each_of_source", None)  # nothing is left to read
        assert format_to(data, out, *options) == 0
    for name in ("text", "utt2spk", "utt2num_samples"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    for utterance, entry in read_data(out).recordings.items():
        before = read_audio(read_data(data).recordings[utterance], "before")[0]
        numpy.testing.assert_array_equal(read_audio(entry, "after")[0], before)


def test_what_shares_left_out_or_lost_is_formatted_at_the_end(data, tmp_path):
    out = tmp_path / "dump"
    assert format_to(data, out, "--part", "1/2") == 0
    (out / "audio/a-1.flac").unlink()  # as by a job that found files of an older configuration
    assert format_to(data, out) == 0
    assert len(validate(out)[0].texts) == 4
    assert len(audio_files(out)) == 4


def test_shares_of_other_data_are_not_kept(data, tmp_path, make_data):
    out = tmp_path / "dump"
    assert format_to(data, out, "--part", "1/2") == 0
    make_data(data, {"a-1": 0.6, "a-2": 0.6, "b-1": 0.6, "b-2": 0.6})
    assert format_to(data, out) == 0
    assert set(read_map(out / "utt2num_samples").values()) == {"9600"}


def test_kept_recordings_stay_where_and_as_they_are(tmp_path, make_data):
    data = make_data(tmp_path / "data", {"a-1": 0.2, "b-1": 0.4}, suffix=".flac")
    before = read_data(data).recordings
    assert format_to(data, tmp_path / "dump", "--format", "keep", "--min_seconds", "0.3") == 0
    assert read_data(tmp_path / "dump").recordings == {"b-1": before["b-1"]}
    assert read_map(tmp_path / "dump/utt2num_samples") == {"b-1": "6400"}
    assert audio_files(tmp_path / "dump") == []


def test_damaged_recording_is_not_kept(data, tmp_path, capsys):
    damage(data, "b-1")
    assert format_to(data, tmp_path / "dump", "--format", "keep") == 2
    assert "utterance 'b-1'" in capsys.readouterr().err
    assert not (tmp_path / "dump/wav.scp").exists()


def test_files_and_archives_together_are_not_kept(data, tmp_path, capsys):
    assert format_to(data, tmp_path / "ark", "--format", "ark") == 0
    archived = read_data(tmp_path / "ark").recordings["a-2"]
    path = data / "wav.scp"
    path.write_text(path.read_text().replace(read_data(data).recordings["a-2"], archived))
    assert format_to(data, tmp_path / "dump", "--format", "keep") == 2
    assert "'a-2': it is in an archive, others are not" in capsys.readouterr().err


def test_length_filter_leaves_out_both_ends(data, tmp_path, capsys):
    out = tmp_path / "dump"
    assert format_to(data, out, "--min_seconds", "0.25", "--max_seconds", "0.45") == 0
    assert list(read_data(out).texts) == list(read_map(out / "utt2num_samples")) == ["a-2", "b-1"]
    assert "2 utterances, 2 left out" in capsys.readouterr().out


def test_filter_that_leaves_nothing_is_an_error(data, tmp_path, capsys):
    assert format_to(data, tmp_path / "dump", "--min_seconds", "9") == 2
    assert "no utterance is between 9.0 and" in capsys.readouterr().err
    assert not (tmp_path / "dump/wav.scp").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "falc"], "--format: 'falc' is not known (did you mean 'flac'?)"),
        (["--sample_rate", "0"], "--sample_rate: 0; expected a rate in Hz"),
        (["--channel", "left"], "--channel: 'left'; expected mean, or a number from 1"),
        (["--channel", "1", "--format", "keep"], "--channel 1: --format keep leaves recordings"),
        (
            ["--sample_rate", "8000", "--format", "keep"],
            "sampled at 16000 Hz, 8000 Hz was expected, and --format keep leaves it so",
        ),
    ],
)
def test_wrong_format_options_are_named(data, tmp_path, capsys, options, message):
    assert format_to(data, tmp_path / "dump", *options) == 2
    assert message in capsys.readouterr().err
    assert audio_files(tmp_path / "dump") == []


def test_flac_damaged_in_its_middle_is_named(data, tmp_path, capsys):
    path = data / "source" / "b-1.flac"
    samples = numpy.random.default_rng(0).normal(0, 3000, 16000).astype(numpy.int16)
    soundfile.write(path, samples, 16000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    scp = data / "wav.scp"
    scp.write_text(scp.read_text().replace("b-1.wav", "b-1.flac"))
    assert format_to(data, tmp_path / "dump") == 2
    assert "utterance 'b-1'" in capsys.readouterr().err
    assert not (tmp_path / "dump/wav.scp").exists()


@pytest.mark.parametrize("kind", ["flac", "ark"])
def test_full_disk_stops_format_and_leaves_no_half(data, tmp_path, monkeypatch, capsys, kind):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    if kind == "ark":
        monkeypatch.setattr(audio_io, "_encode", full)
    assert format_to(data, tmp_path / "dump", "--format", kind) == 2
    error = capsys.readouterr().err
    assert re.search(r"(a-1\.flac|audio\.0\.ark): no space left on the disk", error)
    assert audio_files(tmp_path / "dump") == []
    assert not (tmp_path / "dump/wav.scp").exists()


def test_data_that_changed_after_formatting_is_noticed(data, tmp_path, make_data, capsys):
    out = tmp_path / "dump"
    assert format_to(data, out) == 0
    make_data(data, {"a-1": 0.6})
    assert format_to(data, out) == 2
    error = capsys.readouterr().err
    assert "made with another configuration (fingerprint:" in error and "--work_dir" in error


# Tokens


@pytest.fixture
def text(tmp_path) -> Path:
    words = "ALPHA BRAVO CHARLIE DELTA ECHO FOXTROT GOLF HOTEL INDIA JULIET".split()
    path = tmp_path / "text"
    path.write_text("".join(f"u{i} {words[i]} {words[i - 1]}\n" for i in range(10)))
    return path


def test_bpe_list_is_in_espnets_order_and_the_model_makes_it(text, tmp_path):
    import sentencepiece

    out = tmp_path / "tokens"
    assert tokens(text, out, "--type", "bpe", "--vocab_size", "40") == 0
    made = (out / "tokens.txt").read_text().splitlines()
    assert made[:2] == ["<blank>", "<unk>"] and made[-1] == "<sos/eos>"
    assert len(set(made)) == len(made)
    expected = {"type": "bpe", "vocab_size": len(made), "model": "bpe.model"}
    assert read_json(out / "tokens.json") == expected
    model = sentencepiece.SentencePieceProcessor(model_file=str(out / "bpe.model"))
    for sentence in read_map(text).values():
        pieces = model.encode(sentence, out_type=str)
        assert set(pieces) <= set(made) and model.decode(pieces) == sentence


def test_tokens_are_the_same_again(text, tmp_path):
    for name in ("a", "b"):
        assert tokens(text, tmp_path / name, "--type", "bpe", "--vocab_size", "40") == 0
    for file in ("tokens.txt", "tokens.json", "bpe.model"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_characters_hold_the_space_once(text, tmp_path):
    out = tmp_path / "tokens"
    assert tokens(text, out, "--type", "char") == 0
    made = (out / "tokens.txt").read_text().splitlines()
    letters = sorted({c for s in read_map(text).values() for c in s} - {" "})
    assert made == ["<blank>", "<unk>", *letters, "<space>", "<sos/eos>"]
    assert read_json(out / "tokens.json") == {
        "type": "char",
        "vocab_size": len(made),
        "model": None,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--type", "bpe", "--vocab_size", "5000"], r"--vocab_size 5000: .* so many tokens of"),
        (["--type", "bpe", "--vocab_size", "5"], r"--vocab_size 5: "),
        (["--type", "bpm"], r"--type: 'bpm' is not known \(did you mean 'bpe'\?\)"),
    ],
)
def test_wrong_token_options_are_named(text, tmp_path, capsys, options, message):
    out = tmp_path / "tokens"
    assert tokens(text, out, *options) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error
    assert not list(out.glob("*"))


def test_text_that_changed_after_the_tokens_is_noticed(text, tmp_path, capsys):
    assert tokens(text, tmp_path / "tokens", "--type", "char") == 0
    text.write_text("u0 OTHER\n")
    assert tokens(text, tmp_path / "tokens", "--type", "char") == 2
    error = capsys.readouterr().err
    assert "fingerprint" in error and "--work_dir" in error and "--tag" not in error


def test_a_number_of_tokens_matters_only_to_bpe(text, tmp_path, capsys):
    char, bpe = tmp_path / "char", tmp_path / "bpe"
    for size in ("30", "40"):
        assert tokens(text, char, "--type", "char", "--vocab_size", size) == 0
    assert tokens(text, bpe, "--type", "bpe", "--vocab_size", "40") == 0
    assert tokens(text, bpe, "--type", "bpe", "--vocab_size", "41") == 2
    assert "vocab_size: 40 -> 41" in capsys.readouterr().err


def test_tokens_are_those_of_a_model_or_refused(text, tmp_path):
    out = tmp_path / "tokens"
    assert tokens(text, out, "--type", "bpe", "--vocab_size", "40") == 0
    own = (out / "tokens.txt").read_text().splitlines()
    check_tokens(out, own, out / "bpe.model", "model")
    with pytest.raises(ConfigError, match=r"tokens.txt: its 42 .* the 41 that model .*\(line 42:"):
        check_tokens(out, own[:-1], out / "bpe.model", "model")
    for model in (out / "tokens.json", None):
        with pytest.raises(ConfigError, match="bpe.model is not the BPE model or tokenizer that"):
            check_tokens(out, own, model, "model")
    with pytest.raises(DataError, match="absent/tokens.txt: no such file; run stage 4"):
        check_tokens(tmp_path / "absent", own, None, "model")
