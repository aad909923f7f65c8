"""Memory and real-time factor of long recordings, of a program that is played."""

import importlib.util
import json
import sys

import numpy
import pytest
import soundfile

PLAYED = """\
import soundfile, sys, time
words = sys.argv[1:]
assert words[:4] == ["--model", "m", "--mode", "joint"], words
seconds = soundfile.info(words[-1]).duration
held = b"x" * int(seconds * 2**24)  # 16 MiB a second
end = time.process_time() + 0.1 * seconds
while time.process_time() < end:
    pass
sys.exit(len(words) > 5)
"""


@pytest.fixture
def long_audio(repository, tmp_path, monkeypatch):
    """The benchmark, whose program uses 16 MiB and 0.1 s a second of audio."""
    path = repository / "benchmarks/long_audio.py"
    spec = importlib.util.spec_from_file_location("long_audio", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "long_audio", module)
    spec.loader.exec_module(module)
    (tmp_path / "played.py").write_text(PLAYED)
    module.PROGRAM = (sys.executable, str(tmp_path / "played.py"))
    soundfile.write(tmp_path / "a.wav", numpy.ones(4000, numpy.int16), 8000)
    return module


def test_costs_are_those_of_the_process(long_audio, tmp_path, capsys):
    words = [str(tmp_path / "a.wav"), "--model", "m", "--mode", "joint", "--minutes", "0.05", "0.2"]
    assert long_audio.main([*words, "--out", str(tmp_path / "out.json")]) == 0
    few, many = json.loads((tmp_path / "out.json").read_text())["costs"]
    assert (few["minutes"], many["minutes"]) == (0.05, 0.2)
    assert many["peak_mib"] - few["peak_mib"] == pytest.approx(16 * 9, rel=0.25)
    assert 0.1 <= many["processor_rtf"] < few["processor_rtf"]  # as the start weighs less
    assert many["wall_rtf"] >= 0.9 * many["processor_rtf"]
    assert "0.2 min" in capsys.readouterr().out


def test_a_program_that_fails_is_told(long_audio, tmp_path, capsys):
    words = [str(tmp_path / "a.wav"), "--model", "m", "--mode", "joint", "--segment_seconds", "4"]
    assert long_audio.main([*words, "--minutes", "0.05"]) == 1
    assert "transcribe failed" in capsys.readouterr().err
