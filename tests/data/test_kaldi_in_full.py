"""Kaldi directories in full: parts, channels, commands and rates become plain dump folders."""

import logging
import shutil

import numpy
import pytest
import soundfile

from espnet_prune.cli import main
from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.kaldi_dir import read_data, read_map, speaker_lists, write_map
from espnet_prune.data.speed import perturb

RATE = 16000
TEXTS = {"c1-a-1": "ONE", "c1-a-2": "TWO TWO", "c1-b-1": "THREE", "c2-a-1": "FOUR"}
PARTS = {
    "c1-a-1": "call1-A 0.5 1.25",
    "c1-a-2": "call1-A 1.5 -1",
    "c1-b-1": "call1-B 0.25 2.0",
    "c2-a-1": "call2 0 1.0",
}


def tone(hertz: float, seconds: float = 2.0, rate: int = RATE) -> numpy.ndarray:
    steps = numpy.arange(int(seconds * rate)) / rate
    return (8000 * numpy.sin(2 * numpy.pi * hertz * steps)).astype(numpy.int16)


@pytest.fixture
def calls(tmp_path):
    """Two calls of which utterances are parts: one of two channels, one through a command."""
    folder = tmp_path / "calls"
    folder.mkdir()
    both = numpy.stack([tone(300), tone(700)], axis=1)
    soundfile.write(folder / "call 1.wav", both, RATE)
    soundfile.write(folder / "call2.flac", tone(500), RATE)
    scp = {r: str(folder / "call 1.wav") for r in ("call1-A", "call1-B")}
    scp["call2"] = f"cat '{folder / 'call2.flac'}' |"
    write_map(folder / "wav.scp", scp)
    write_map(folder / "segments", PARTS)
    write_map(
        folder / "reco2file_and_channel",
        {"call1-A": "call1 A", "call1-B": "call1 B", "call2": "call2 A"},
    )
    write_map(folder / "text", TEXTS)
    speakers = {utterance: utterance[:4] for utterance in TEXTS}
    write_map(folder / "utt2spk", speakers)
    write_map(folder / "spk2utt", speaker_lists(speakers))
    return folder


def formatted(source, out, *options: str) -> int:
    return main(["format_audio", "--source", str(source), "--out", str(out), *options])


@pytest.mark.parametrize("kind", ["flac", "ark"])
@pytest.mark.parametrize("jobs", ["1", "3"])
def test_parts_channels_and_commands_become_plain_files(calls, tmp_path, kind, jobs):
    out = tmp_path / "dump"
    assert formatted(calls, out, "--format", kind, "--nj", jobs) == 0
    expected = {
        "c1-a-1": tone(300)[8000:20000],
        "c1-a-2": tone(300)[24000:],
        "c1-b-1": tone(700)[4000:32000],
        "c2-a-1": tone(500)[:16000],
    }
    assert read_data(out).texts == TEXTS and not (out / "segments").exists()
    lengths = read_map(out / "utt2num_samples")
    for utterance, samples in expected.items():
        found, _ = read_audio(read_data(out).recordings[utterance], "here", RATE)
        numpy.testing.assert_array_equal(found, samples)
        assert int(lengths[utterance]) == len(samples)


def test_speeds_of_parts_are_applied_to_what_is_formatted_once(calls, tmp_path):
    words = ["--source", str(calls), "--out", str(tmp_path / "sp"), "--factors", "0.9", "1"]
    assert main(["perturb_speed", *words]) == 0
    assert formatted(tmp_path / "sp", tmp_path / "dump") == 0
    assert len(list((tmp_path / "dump/audio").iterdir())) == 4
    entry = read_data(tmp_path / "dump").recordings["sp0.9-c1-a-1"]
    expected = perturb(tone(300)[8000:20000], 0.9, RATE)
    numpy.testing.assert_array_equal(read_audio(entry, "here")[0], expected)


def test_shares_of_parts_are_what_the_call_without_one_makes(calls, tmp_path):
    assert formatted(calls, tmp_path / "whole") == 0
    for index in (2, 1):
        assert formatted(calls, tmp_path / "dump", "--part", f"{index}/2") == 0
    assert formatted(calls, tmp_path / "dump") == 0
    name = "utt2num_samples"
    assert (tmp_path / "dump" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_validation_reads_all_of_it_and_says_what_is_not_read(calls, capsys, caplog):
    (calls / "utt2dur").write_text("c1-a-1 0.75\n")
    (calls / "utt2lang").write_text("c1-a-1 en\n")
    with (calls / "wav.scp").open("a") as file:
        file.write(f"unused {calls / 'call2.flac'}\n")
    assert main(["validate_data", str(calls), "--nj", "2"]) == 0
    assert "4 utterances, 3 speakers, 5 words, 0.1 min" in capsys.readouterr().out
    assert "not read: utt2dur, utt2lang" in caplog.text
    assert "'unused': no utterance is a part of it" in caplog.text
    assert "'c1-a-1', 'c1-a-2': of its 2 channels, number 1 is taken" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("call1-A 1.5", r"'call1-A 1.5' \(3 fields\); expected a recording, and where it begins"),
        ("call1-A 1.5 x", "could not convert string to float: 'x'"),
        ("call1-A 1.5 1.5", "an end before the start"),
        ("call1-A -1 1.5", "a time before the recording"),
        ("call1-A nan 1.5", "a time before the recording"),
        ("call9 0 1", "'c1-a-1' is of 'call9', which wav.scp hasn't"),
        ("call1-A 2.5 3", "there is no part from 2.5 to 3 s, as the recording has 2.000 s"),
        ("call1-A 1 2.6", "there is no part from 1 to 2.6 s, as the recording has 2.000 s"),
        ("call1-A 1 1.00001", "holds no samples"),
        ("call1-A 0 1 2", "has 2 channels, so there is no channel 3"),
    ],
)
def test_wrong_parts_are_named(calls, capsys, line, message):
    write_map(calls / "segments", {**PARTS, "c1-a-1": line})
    assert main(["validate_data", str(calls)]) == 2
    error = capsys.readouterr().err
    assert message.replace("\\", "") in error and "c1-a-1" in error


def test_a_part_may_end_a_little_after_its_recording(calls, caplog):
    write_map(calls / "segments", {**PARTS, "c2-a-1": "call2 0 2.3"})
    assert main(["validate_data", str(calls)]) == 0
    assert "'c2-a-1': its part ends up to 0.5 s after its recording" in caplog.text


@pytest.mark.parametrize("line", ["call1 C", "call1", "call1 0", "call1 a b"])
def test_wrong_channels_are_named(calls, capsys, line):
    write_map(calls / "reco2file_and_channel", {"call1-A": line})
    assert main(["validate_data", str(calls)]) == 2
    error = capsys.readouterr().err
    assert f"'{line}'; expected a name and a channel" in error or "no channel 3" in error


@pytest.mark.parametrize(("channel", "hertz"), [("1", 300), ("2", 700), ("mean", None)])
def test_a_channel_may_be_chosen_for_all(calls, tmp_path, channel, hertz):
    (calls / "reco2file_and_channel").unlink()
    assert formatted(calls, tmp_path / "dump") == 2
    assert formatted(calls, tmp_path / "dump", "--channel", channel) == 0
    found, _ = read_audio(read_data(tmp_path / "dump").recordings["c1-a-1"], "here")
    both = [tone(f)[8000:20000].astype(int) for f in (300, 700)]
    expected = tone(hertz)[8000:20000] if hertz else sum(both) / 2
    assert numpy.abs(found - expected).max() <= 1
    assert formatted(calls, tmp_path / "dump", "--channel", channel) == 0  # finished
    assert formatted(calls, tmp_path / "dump") == 2  # another configuration


def test_commands_may_be_forbidden(calls, tmp_path, capsys):
    marker = tmp_path / "ran"
    scp = read_map(calls / "wav.scp")
    write_map(calls / "wav.scp", {**scp, "call2": f"touch {marker} |"})
    for run in (
        lambda: main(["validate_data", str(calls), "--pipes", "forbid"]),
        lambda: formatted(calls, tmp_path / "dump", "--pipes", "forbid"),
    ):
        assert run() == 2
        assert "is a pipe, which would run a command; allow that" in capsys.readouterr().err
        assert not marker.exists()


def test_other_rates_are_resampled_and_that_is_said_once(calls, tmp_path, caplog):
    soundfile.write(calls / "call2.flac", tone(500, rate=8000), 8000)
    with caplog.at_level(logging.INFO):
        assert main(["validate_data", str(calls)]) == 0
        assert formatted(calls, tmp_path / "dump") == 0
    assert "'c2-a-1': it is sampled at 8000 Hz and is resampled to 16000 Hz" in caplog.text
    assert "1 of 4 recordings were resampled from 8000 to 16000 Hz" in caplog.text
    found, _ = read_audio(read_data(tmp_path / "dump").recordings["c2-a-1"], "here", RATE)
    assert numpy.abs(found[400:15600] - tone(500)[400:15600]).max() < 30


def test_what_is_no_plain_file_is_not_kept_as_it_is(calls, tmp_path, capsys):
    assert formatted(calls, tmp_path / "dump", "--format", "keep") == 2
    assert "which --format keep can't leave as it is" in capsys.readouterr().err


def test_another_part_of_the_same_recording_is_other_data(calls, tmp_path, capsys):
    assert formatted(calls, tmp_path / "dump") == 0
    write_map(calls / "segments", {**PARTS, "c1-a-1": "call1-A 0.5 1.26"})
    assert formatted(calls, tmp_path / "dump") == 2
    assert "made with another configuration (fingerprint:" in capsys.readouterr().err


def test_a_file_that_a_command_reads_is_a_part_of_the_data(calls, tmp_path, capsys):
    assert formatted(calls, tmp_path / "dump") == 0
    soundfile.write(calls / "call2.flac", tone(500, 2.5), RATE)
    assert formatted(calls, tmp_path / "dump") == 2
    assert "made with another configuration (fingerprint:" in capsys.readouterr().err


def test_each_recording_is_read_once(calls, tmp_path):
    counter = tmp_path / "count.sh"
    counter.write_text(f"#!/bin/sh\necho x >> {tmp_path / 'read'}\ncat {calls / 'call2.flac'}\n")
    counter.chmod(0o755)
    scp = read_map(calls / "wav.scp")
    write_map(calls / "wav.scp", {**scp, "call2": f"{counter} |"})
    write_map(calls / "segments", {**PARTS, "c2-a-1": "call2 0 1.0", "c1-b-1": "call2 1.0 1.5"})
    assert formatted(calls, tmp_path / "dump", "--format", "ark") == 0
    assert (tmp_path / "read").read_text() == "x\n"
    shutil.rmtree(tmp_path / "dump")
