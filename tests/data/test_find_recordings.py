"""A folder's recordings are found by what they are, not by what their names end in."""

import os

import numpy
import pytest
import soundfile

from espnet_prune.data.find_recordings import SHOWN, find_recordings

SAMPLES = numpy.arange(800, dtype=numpy.int16)
KINDS = {
    "a.wav": "WAV",
    "B.WAVE": "WAV",
    "c.aiff": "AIFF",
    "d.AIF": "AIFF",
    "e.au": "AU",
    "f.oga": "OGG",
    "g.sph": "NIST",
    "h.caf": "CAF",
    "i.w64": "W64",
    "j.mp3": "MP3",
    "k.bin": "FLAC",
    "no_suffix": "WAV",
    "below/deeper/l.flac": "FLAC",
}


@pytest.fixture
def folder(tmp_path):
    for name, kind in KINDS.items():
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, SAMPLES, 16000, format=kind)
    return tmp_path / "audio"


def names(paths, folder):
    return {str(path.relative_to(folder)) for path in paths}


def test_every_format_is_found_and_nothing_is_left_out(folder):
    found = find_recordings(folder)
    assert names(found.recordings, folder) == set(KINDS)
    assert list(found.recordings) == sorted(found.recordings)
    assert found.left_out(folder) == ""


def test_what_is_no_recording_is_counted_and_named(folder):
    (folder / "notes.txt").write_text("text")
    (folder / "below/film.m4a").write_bytes(b"\0\0\0\x18ftypM4A ")
    (folder / "utf16.txt").write_bytes("words".encode("utf-16"))
    os.mkfifo(folder / "pipe.wav")  # would be waited for
    found = find_recordings(folder)
    assert names(found.recordings, folder) == set(KINDS)
    assert found.left_out(folder) == (
        "4 files hold no recording: 'below/film.m4a', 'notes.txt', 'pipe.wav', 'utf16.txt'"
    )


def test_a_damaged_recording_is_one(folder):
    (folder / "damaged.wav").write_bytes(b"no sound")
    assert folder / "damaged.wav" in find_recordings(folder).recordings


def test_hidden_files_and_folders_are_left_out_without_a_word(folder):
    (folder / ".cache").mkdir()
    for name in ("._a.wav", ".cache/b.wav"):
        soundfile.write(folder / name, SAMPLES, 16000)
    found = find_recordings(folder)
    assert names(found.recordings, folder) == set(KINDS) and not found.others


def test_links_to_folders_are_followed_once(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    soundfile.write(tmp_path / "elsewhere/m.wav", SAMPLES, 16000)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "below/circle").symlink_to(folder)
    found = find_recordings(folder)
    assert names(found.recordings, folder) == {*KINDS, "link/m.wav"}


def test_many_others_are_named_in_part(tmp_path):
    for number in range(SHOWN + 7):
        (tmp_path / f"{number:03d}.txt").write_text("")
    said = find_recordings(tmp_path).left_out(tmp_path)
    assert said.startswith(f"{SHOWN + 7} files hold no recording: '000.txt', ")
    assert said.endswith(" and 7 more")
