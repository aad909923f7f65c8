"""Commands of wav.scp: run without a shell, and everything that would need one is refused."""

import shutil
import sys

import numpy
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from espnet_prune.data import pipe
from espnet_prune.data.pipe import run_pipe, words_of

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sph2pipe -f wav -c 1 a.sph |", [["sph2pipe", "-f", "wav", "-c", "1", "a.sph"]]),
        ("flac -dcs 'a b.flac' | sox - -t wav - |", [
            ["flac", "-dcs", "a b.flac"], ["sox", "-", "-t", "wav", "-"]]),
        ('ffmpeg -i "a (1) & b.mp3" -f wav - |', [
            ["ffmpeg", "-i", "a (1) & b.mp3", "-f", "wav", "-"]]),
        (r"cat a\ b.wav |", [["cat", "a b.wav"]]),
        ("cat '#1*?.wav' |", [["cat", "#1*?.wav"]]),
    ],
)  # fmt: skip
def test_words_are_quoted_as_for_a_shell(command, words):
    assert words_of(command) == words


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("cat a.wav; rm -r / |", "';' would need a shell"),
        ("cat a.wav && rm b |", "'&&' would need a shell"),
        ("cat < a.wav |", "'<' would need a shell"),
        ("sox a.wav -t wav - 2>/dev/null |", "'>' would need a shell; leave it out"),
        ("cat $HOME/a.wav |", r"'\$' would need a shell; write out"),
        ("cat `pwd`/a.wav |", "'`' would need a shell"),
        ("(cat a.wav) |", r"'\(' would need a shell"),
        ("cat a.wav || true |", r"'\|\|' would need a shell"),
        ("cat 'a.wav |", "its quotes aren't closed"),
        ("|", "a command is missing"),
        ("| cat |", "a command is missing"),
    ],
)
def test_what_would_need_a_shell_is_refused_and_nothing_runs(command, message):
    with pytest.raises(ValueError, match=message):
        run_pipe(command)


@given(st.text(alphabet="ab '\"|;&$`\\<>()*#\n", max_size=20))
def test_any_line_is_words_or_an_error(text):
    try:
        commands = words_of(text + "|")
    except ValueError:
        return
    assert all(commands) and not set("$`") & set("".join(map(" ".join, commands)))


def test_what_the_last_command_prints_is_read():
    number = f"{PYTHON} -c 'print(7)'"
    double = f"{PYTHON} -c 'print(2 * int(input()))'"
    assert run_pipe(f"{number} | {double} |").read() == b"14\n"


def test_a_command_reads_no_terminal():
    assert run_pipe(f"{PYTHON} -c 'import sys; print(len(sys.stdin.read()))' |").read() == b"0\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "no-such-program a.wav |",
            r"'no-such-program' can't be run \(No such file or directory\)",
        ),
        (f"{PYTHON} -c 'import sys; sys.exit(\"no file\")' |", "ended with status 1: no file"),
        (f"{PYTHON} -c 'exit(3)' | cat |", "ended with status 3"),
    ],
)
def test_a_command_that_fails_says_how(command, message):
    with pytest.raises(ValueError, match=message):
        run_pipe(command)


def test_a_command_that_was_not_read_to_its_end_has_not_failed():
    assert run_pipe("yes 1 | head -c 3 |").read() == b"1\n1"


def test_a_command_that_does_not_end_is_ended(monkeypatch):
    monkeypatch.setattr(pipe, "SECONDS", 0.2)
    with pytest.raises(ValueError, match="has not ended after"):
        run_pipe(f"{PYTHON} -c 'import time; time.sleep(100)' |")


@pytest.mark.skipif(shutil.which("cat") is None, reason="no cat")
def test_a_recording_whose_header_was_written_before_its_end_was_known(tmp_path):
    from espnet_prune.data.audio_io import examine
    from espnet_prune.data.excerpt import Reading

    samples = numpy.arange(4000, dtype=numpy.int16)
    path = tmp_path / "a b.wav"
    soundfile.write(path, samples, 16000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    found = examine(f"cat '{path}' |", "here", Reading(pipes=True))
    numpy.testing.assert_array_equal(found.samples, samples)
