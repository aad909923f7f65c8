"""Kaldi data directories: what is written is read again, and what is wrong is named."""

import re

import numpy
import pytest
import soundfile

from espnet_prune.cli import main
from espnet_prune.data.kaldi_dir import DataSet, read_data, read_map, write_data
from espnet_prune.data.validate import validate
from espnet_prune.errors import DataError


def edit(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def recording(data, utterance: str):
    return data / "source" / f"{utterance}.wav"


def truncate(path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def stereo(path) -> None:
    soundfile.write(path, numpy.ones((800, 2), numpy.int16), 16000)


def no_samples(path) -> None:
    soundfile.write(path, numpy.ones(0, numpy.int16), 16000)


def test_written_is_read_again_sorted(tmp_path):
    data = DataSet({"b": "2.wav", "a": "1.wav"}, {"b": "B C", "a": "A"}, {"b": "y", "a": "x"})
    write_data(tmp_path, data)
    assert read_data(tmp_path) == data
    assert (tmp_path / "wav.scp").read_text() == "a 1.wav\nb 2.wav\n"
    assert (tmp_path / "spk2utt").read_text() == "x a\ny b\n"


def test_only_a_line_feed_ends_a_line(tmp_path):
    """Kaldi and ESPnet split nowhere else."""
    path = tmp_path / "text"
    path.write_text("a ONE\u2028TWO\nb TH\u0085REE\x0cFOUR\r\n", encoding="utf-8")
    assert read_map(path) == {"a": "ONE\u2028TWO", "b": "TH\u0085REE\x0cFOUR"}
    path.write_text("")
    with pytest.raises(DataError, match="it is empty"):
        read_map(path)


def test_subset_keeps_only_the_utterances_named(data):
    part = read_data(data).subset({"a-2", "b-1"})
    assert list(part.texts) == list(part.recordings) == list(part.speakers) == ["a-2", "b-1"]


def test_valid_directory_and_its_length(data):
    found, holding = validate(data)
    assert len(found.texts) == 4
    assert holding.seconds == pytest.approx(1.4)
    assert str(holding) == "4 utterances, 2 speakers, 8 words, 0.0 min" and not holding.notes


def test_tabs_separate_too(data):
    edit(data / "text", "a-1 ", "a-1\t")
    assert read_data(data).texts["a-1"] == "WORD A-1"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("text", "a-2 WORD A-2\n", "", r"text: no transcript for utterance 'a-2'.*add it or drop"),
        ("utt2spk", "b-1 b\n", "", r"utt2spk: no speaker for utterance 'b-1'"),
        ("wav.scp", "a-1 ", "a-0 ", r"no transcript for utterance 'a-0'"),
        ("text", "a-2 ", "a-1 ", r"text:2: 'a-1' comes twice"),
        ("text", "a-2 WORD A-2", "a-2", r"text:2: 'a-2' has an empty value"),
        ("text", "a-2 WORD A-2", "", r"text:2: an empty line"),
        ("text", "a-1 ", "z-1 ", r"text:2: 'a-2' is out of order; sort"),
        ("spk2utt", "a a-1 a-2", "a a-1", r"spk2utt: it doesn't agree with utt2spk"),
        ("wav.scp", "b-2.wav", "none.wav", r"utterance 'b-2': there is no file '.*none\.wav'"),
        ("wav.scp", "b-2.wav", "b-2.wav | cat |", r"utterance 'b-2': '.*' can't be run \('/"),
        (
            "wav.scp",
            "a-1 ",
            f"a-0{'a' * 198} ",
            r"utterance ID 'a-0a*' has 201 bytes, 200 are allowed",
        ),
        ("text", "a-2 ", "a-2\u200b ", r"text:2: 'a-2.' has an invisible character, U\+200B ZERO"),
        ("wav.scp", "b-2.wav", "b\u2060-2.wav", r"no file '.*' \(with all .*b\\u2060-2\.wav'\)"),
        ("text", "A-2", "A\u00ad-2 \ufeff", r"1 texts have .* \(U\+00AD SOFT HYPHEN, U\+FEFF ZERO"),
        ("wav.scp", "a-1 ", "../a-1 ", r"'../a-1'"),
    ],
)
def test_wrong_files_are_named(data, capsys, file, old, new, message):
    edit(data / file, old, new)
    assert main(["validate_data", str(data)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    assert str(data) in error and re.search(message, error)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "can't be read as audio"),
        (lambda path: path.write_bytes(b"no audio at all"), "can't be read as audio"),
        (truncate, r"can't be read as audio \(it has \d+ bytes, \d+ by its header\)"),
        (no_samples, "holds no samples"),
        (stereo, "has 2 channels, 1 was expected; .*--channel 1"),
    ],
)
def test_wrong_audio_is_named(data, capsys, damage, message):
    damage(recording(data, "b-1"))
    assert main(["validate_data", str(data)]) == 2
    error = capsys.readouterr().err
    assert "utterance 'b-1'" in error and "wav.scp" in error
    assert re.search(message, error)


def test_missing_and_empty_file_are_named(data):
    (data / "text").write_text("")
    with pytest.raises(DataError, match="text: it is empty"):
        read_data(data)
    (data / "text").unlink()
    with pytest.raises(DataError, match="text: no such file"):
        read_data(data)


def test_text_that_is_not_utf8_is_named(data):
    (data / "text").write_bytes(b"a-1 \xff\n")
    with pytest.raises(DataError, match="text: not UTF-8"):
        read_data(data)


def test_a_byte_order_mark_is_passed_over(data):
    expected = read_data(data)
    for name in ("wav.scp", "text", "utt2spk", "spk2utt"):
        (data / name).write_text("\ufeff" + (data / name).read_text(), encoding="utf-8")
    assert read_data(data) == expected
    assert validate(data)[0] == expected


def test_white_space_of_any_kind_is_one_space_in_a_text_and_joiners_stay(data):
    edit(data / "text", "WORD A-2", "\u3000WO\u00a0\tRD\u2028 \u200cA")
    assert read_data(data).texts["a-2"] == "WO RD \u200cA"


def test_slash_in_an_utterance_id_is_refused(tmp_path):
    write_data(tmp_path, DataSet({"../a": "a.wav"}, {"../a": "A"}, {"../a": "a"}))
    with pytest.raises(DataError, match=r"utterance ID '\.\./a' has a '/'"):
        read_data(tmp_path)


def test_main_says_what_a_directory_holds(data, capsys):
    assert main(["validate_data", str(data)]) == 0
    assert "4 utterances, 2 speakers, 8 words" in capsys.readouterr().out
