"""fix_data leaves out what can't be used, says why, and what is left is valid."""

import numpy
import pytest
import soundfile

from espnet_prune.cli import main
from espnet_prune.data import fix
from espnet_prune.data.kaldi_dir import read_data, read_map
from espnet_prune.data.validate import validate


def run(data, *options: str) -> int:
    return main(["fix_data", str(data), *options])


def change(path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_valid_directory_stays_as_it_is(data, capsys):
    before = {name: (data / name).read_text() for name in ("wav.scp", "text", "utt2spk", "spk2utt")}
    assert run(data) == 0
    assert "4 utterances, nothing is left out" in capsys.readouterr().out
    assert all((data / name).read_text() == text for name, text in before.items())
    assert not (data / "left_out.txt").exists()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda d: (d / "source/b-1.wav").unlink(), "there is no file"),
        (lambda d: (d / "source/b-1.wav").write_bytes(b"no"), "can't be read as audio"),
        (lambda d: change(d / "text", "b-1 WORD B-1\n", ""), "it has no transcript"),
        (lambda d: change(d / "text", "b-1 WORD B-1", "b-1"), "it has no value in text"),
        (lambda d: change(d / "utt2spk", "b-1 b\n", ""), "it has no speaker"),
        (lambda d: change(d / "text", "b-2", "b-1 OTHER\nb-2"), "comes twice in text, with diff"),
        (
            lambda d: soundfile.write(
                d / "source/b-1.wav", numpy.ones((800, 2), numpy.int16), 16000
            ),
            "has 2 channels",
        ),
    ],
)
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_what_cannot_be_used_is_left_out_with_its_reason(data, damage, reason, jobs, capsys):
    damage(data)
    assert main(["validate_data", str(data)]) == 2
    assert run(data, "--nj", jobs) == 0
    assert list(validate(data)[0].texts) == ["a-1", "a-2", "b-2"]
    (line,) = (data / "left_out.txt").read_text().splitlines()
    assert line.startswith("b-1 ") and reason in line
    assert read_map(data / "spk2utt")["b"] == "b-2"
    capsys.readouterr()
    assert run(data) == 0  # again
    assert "3 utterances, nothing is left out" in capsys.readouterr().out


def test_lists_are_sorted_and_marks_and_empty_lines_removed(data):
    expected = read_data(data)
    lines = (data / "text").read_text().splitlines()
    (data / "text").write_bytes("\r\n\n".join(reversed(lines)).encode("utf-8-sig"))
    change(data / "wav.scp", "a-1", "a-2")  # the same twice, and one without
    change(data / "wav.scp", "a-2 ", "a-1 ")
    assert run(data) == 0
    assert read_data(data) == expected


def test_invisible_characters_leave_texts_but_ids_with_them_are_left_out(data, capsys):
    change(data / "text", "WORD A-1", "WO\u200bRD\ufeff A-1")
    change(data / "text", "a-2 ", "a-2\u200b ")
    assert run(data) == 0
    assert read_data(data).texts["a-1"] == "WORD A-1"
    lines = (data / "left_out.txt").read_text(encoding="utf-8")
    assert "a-2 it has no transcript" in lines and "U+200B ZERO WIDTH SPACE" in lines
    assert "1 texts without invisible characters now" in capsys.readouterr().out


def test_lines_that_are_not_utf_8_are_named_by_their_number(data):
    content = (data / "text").read_bytes().replace(b"WORD A-2", b"W\xf6RD")
    (data / "text").write_bytes(content)
    assert run(data) == 0
    lines = (data / "left_out.txt").read_text().splitlines()
    assert lines == ["a-2 it has no transcript", "text:2 it is not UTF-8"]


def test_parts_that_are_not_there_are_left_out_one_by_one(data):
    recording = read_map(data / "wav.scp")["b-2"]
    (data / "wav.scp").write_text(f"rec {recording}\nunused {recording}\n")
    lines = ["a-1 rec 0 0.1", "a-2 rec 0.2 0.1", "b-1 other 0 1", "b-2 rec 9 10"]
    (data / "segments").write_text("\n".join(lines) + "\n")
    assert run(data) == 0
    assert (data / "segments").read_text() == "a-1 rec 0 0.1\n"
    assert list(read_map(data / "wav.scp")) == ["rec"]
    left = read_map(data / "left_out.txt")
    assert "an end before the start" in left["a-2"] and "wav.scp hasn't" in left["b-1"]
    assert "there is no part from 9 to 10 s" in left["b-2"]


def test_the_lists_as_they_were_are_kept(data):
    before = (data / "text").read_bytes()
    (data / "source/b-1.wav").unlink()
    assert run(data) == 0
    (data / "source/b-2.wav").unlink()
    assert run(data) == 0
    assert (data / ".backup/text").read_bytes() == before
    assert list(read_data(data).texts) == ["a-1", "a-2"]


def test_the_same_data_are_not_listened_to_again(data, monkeypatch):
    """As where a recipe's first stage makes its lists anew whenever it is resumed."""
    before = {name: (data / name).read_text() for name in ("wav.scp", "text", "utt2spk", "spk2utt")}
    (data / "source/b-1.wav").write_bytes(b"no")
    assert run(data) == 0
    monkeypatch.setattr(fix, "listen", None)
    assert run(data) == 0
    for name, text in before.items():
        (data / name).write_text(text)
    assert run(data) == 0
    assert list(read_data(data).texts) == ["a-1", "a-2", "b-2"]


def test_nothing_usable_is_an_error(data, capsys):
    for path in (data / "source").iterdir():
        path.unlink()
    assert run(data) == 2
    assert "nothing of it can be used; the first of 4 reasons" in capsys.readouterr().err
    assert len(read_data(data).texts) == 4
