"""Audio and archives: the same samples come back, and a damaged file never goes by."""

import errno
import io
import sys
from pathlib import Path

import numpy
import pytest
import soundfile

from espnet_prune.data.audio_io import (
    examine,
    read_audio,
    read_headerless,
    read_speech,
    write_archive,
    write_audio,
)
from espnet_prune.errors import DataError, EnvironmentProblem


@pytest.fixture
def samples():
    """Something smooth, as speech is."""
    return (8000 * numpy.sin(numpy.arange(4000) * 0.05)).astype(numpy.int16)


@pytest.mark.parametrize(("suffix", "kind"), [(".wav", "WAV"), (".flac", "FLAC"), (".sph", "NIST")])
def test_files_give_the_same_samples(tmp_path, samples, suffix, kind):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, samples, 16000, format=kind, subtype="PCM_16")
    found, rate = read_audio(str(path), "here", 16000)
    assert rate == 16000 and found.dtype == numpy.int16
    numpy.testing.assert_array_equal(found, samples)


def test_several_channels_are_averaged_only_where_that_is_asked_for(tmp_path, samples):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, numpy.stack([samples, samples // 2], axis=1), 16000)
    found, averaged = read_speech(path, 16000)
    assert averaged == 2 and found.samples.dtype == numpy.int16
    assert numpy.abs(found.samples - 0.75 * samples).max() <= 1
    for strict in (read_audio, examine):
        with pytest.raises(
            DataError, match="here: .*2 channels.*reco2file_and_channel.*--channel 1"
        ) as caught:
            strict(path, "here")
        assert str(caught.value).count(path) == 1


def test_speech_of_one_channel_at_another_rate_is_resampled(tmp_path, samples):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, samples, 8000)
    found, averaged = read_speech(path, 16000)
    assert (len(found.samples), averaged) == (2 * len(samples), 1)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_path_given_by_a_user_is_named_once(tmp_path, samples, damage):
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 16000)
    damage(path)
    with pytest.raises(DataError) as caught:
        read_speech(str(path), 16000)
    assert str(caught.value).count(str(path)) == 1
    assert "leave it out" in str(caught.value) and "utterance" not in str(caught.value)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floating_point_samples_are_scaled_and_clipped(tmp_path, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, numpy.array([0.0, 0.5, -1.0, 1.0, -1.5]), 16000, subtype=subtype)
    found, _ = read_audio(str(path), "here", 16000)
    assert found.dtype == numpy.int16
    assert found.tolist() == [0, 16384, -32768, 32767, -32768]


def test_floating_point_sample_that_is_no_number_is_named(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, numpy.array([0.0, numpy.nan]), 16000, subtype="FLOAT")
    with pytest.raises(DataError, match="here: .*not a finite number"):
        read_audio(str(path), "here")


LOSSY = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]


@pytest.mark.parametrize(("kind", "subtype"), LOSSY)
def test_what_decodes_above_full_scale_is_clipped_and_keeps_its_sign(tmp_path, kind, subtype):
    path = tmp_path / "loud"
    square = numpy.sign(numpy.sin(numpy.arange(16000) * 0.05))
    soundfile.write(path, square, 16000, format=kind, subtype=subtype)
    with soundfile.SoundFile(path) as file:
        exact = file.read(dtype="float32")
    found, _ = read_audio(str(path), "here")
    assert (exact > 1.0).any() and (exact < -1.0).any()
    assert set(found[exact > 1.0]) == {32767} and set(found[exact < -1.0]) <= {-32767, -32768}


@pytest.mark.parametrize(("kind", "subtype"), [*LOSSY, ("WAV", "ULAW"), ("WAV", "PCM_24")])
def test_within_full_scale_samples_are_those_of_libsndfile(tmp_path, kind, subtype):
    path = tmp_path / "quiet"
    noise = numpy.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(path, noise, 16000, format=kind, subtype=subtype)
    with soundfile.SoundFile(path) as file:
        expected = file.read(dtype="int16")
    numpy.testing.assert_array_equal(read_audio(str(path), "here")[0], expected)


def test_archive_gives_the_same_samples(tmp_path, samples):
    recordings = {"a": samples, "b": samples[:100]}
    path = tmp_path / "with, comma and space.ark"
    entries = write_archive(path, recordings, 16000)
    for utterance, expected in recordings.items():
        found, rate = read_audio(entries[utterance], "here", 16000)
        assert rate == 16000
        numpy.testing.assert_array_equal(found, expected)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_archive_is_read_by_other_programs_too(tmp_path, samples):
    kaldi = pytest.importorskip("omniio").kaldi
    write_archive(tmp_path / "a.ark", {"a": samples}, 16000)
    ((utterance, (rate, found)),) = list(kaldi.load_ark(str(tmp_path / "a.ark")))
    assert (utterance, rate) == ("a", 16000)
    numpy.testing.assert_array_equal(found, samples)


def test_offset_into_the_wrong_place_is_named(tmp_path, samples):
    write_archive(tmp_path / "a.ark", {"a": samples}, 16000)
    with pytest.raises(DataError, match="here: '.*:7' can't be read"):
        read_audio(f"{tmp_path / 'a.ark'}:7", "here")


def test_archive_of_espnet_s_framing_gives_the_samples(tmp_path, samples):
    """ "AUDIO", a length and a file of any kind, which omniio makes floating-point numbers of."""
    content = io.BytesIO()
    soundfile.write(content, samples, 16000, format="FLAC")
    length = len(content.getvalue()).to_bytes(4, "little")
    record = b"a AUDIO\4" + length + content.getvalue()
    (tmp_path / "a.ark").write_bytes(record + b"b ")
    found, rate = read_audio(f"{tmp_path / 'a.ark'}:2", "here")
    assert rate == 16000
    numpy.testing.assert_array_equal(found, samples)
    (tmp_path / "a.ark").write_bytes(record[:-100])
    with pytest.raises(DataError, match="the archive ends after"):
        read_audio(f"{tmp_path / 'a.ark'}:2", "here")


def test_archive_that_ends_early_is_named(tmp_path, samples):
    """omniio would give what is left."""
    path = tmp_path / "a.ark"
    entry = write_archive(path, {"a": samples}, 16000)["a"]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="the archive ends after 7936 bytes of its record"):
        read_audio(entry, "here")


def test_matrix_in_an_archive_is_no_recording(tmp_path):
    kaldi = pytest.importorskip("omniio").kaldi
    kaldi.save_ark(str(tmp_path / "a.ark"), {"a": numpy.ones((2, 3), numpy.float32)})
    with pytest.raises(DataError, match="a matrix there, not a recording"):
        read_audio(f"{tmp_path / 'a.ark'}:2", "here")


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_file_that_ends_early_is_named(tmp_path, samples, suffix):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, samples, 16000)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=f"here: .*a{suffix}' can't be read"):
        read_audio(str(path), "here")


@pytest.fixture
def mp3(samples):
    """A function that writes an MP3: after some bytes, or without its header, or not whole."""

    def write(path, before: bytes = b"", header: bool = True, end: int | None = None):
        rate = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
        soundfile.write(path, numpy.tile(samples, 8), 16000, format="MP3", **rate)
        content = path.read_bytes()
        if not header:  # a frame of silence instead
            content = content.replace(b"Info", bytes(4))
        path.write_bytes((before + content)[:end])
        return str(path)

    return write


ID3_TAG = b"ID3\x03\x00\x00\x00\x00\x01\x02" + bytes(130)


@pytest.mark.parametrize("before", [b"", ID3_TAG], ids=["plain", "tagged"])
def test_mp3_that_ends_early_is_named_if_its_header_tells(tmp_path, mp3, before):
    whole = read_audio(mp3(tmp_path / "a.mp3", before), "here")[0]
    assert len(whole) == 32000
    path = mp3(tmp_path / "b.mp3", before, end=-300)
    with pytest.raises(DataError, match=r"b\.mp3' can't be read .*bytes and .*32000 by its header"):
        read_audio(path, "here")
    numpy.testing.assert_array_equal(read_audio(mp3(tmp_path / "c.mp3", ID3_TAG), "")[0], whole)


def test_mp3_without_a_header_is_read_to_its_end(tmp_path, mp3):
    path = mp3(tmp_path / "a.mp3", header=False, end=-300)
    with soundfile.SoundFile(path) as file:
        told, found = file.frames, len(file.read())
    assert told > found > 0, "what is told is a guess by the bit rate"
    assert len(read_audio(path, "here")[0]) == found


def test_wav_written_into_a_pipe_is_read(tmp_path, samples):
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 16000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(read_audio(str(path), "here")[0]) == len(samples)


@pytest.mark.parametrize("entry", ["sph2pipe a.sph |", "| cat", "touch {}/made |"])
def test_pipe_is_refused_and_not_run(tmp_path, entry):
    with pytest.raises(DataError, match="is a pipe, which would run a command"):
        read_audio(entry.format(tmp_path), "here")
    assert not (tmp_path / "made").exists()


def test_path_that_cannot_be_looked_up_is_named():
    name = 300 * "x"
    with pytest.raises(DataError, match=f"here: '{name}' can't be looked up .*or leave it out"):
        read_audio(name, "here")


def test_another_rate_is_an_error_whose_remedy_every_command_has(tmp_path, samples):
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 8000)
    with pytest.raises(DataError, match="8000 Hz, 16000 Hz was expected; resample it") as caught:
        read_audio(str(path), "here", 16000)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize("order", [">i2", "<i2"])
def test_headerless_samples_in_either_byte_order(tmp_path, samples, order):
    path = tmp_path / "a.raw"
    samples.astype(order).tofile(path)
    numpy.testing.assert_array_equal(read_headerless(path), samples)


@pytest.mark.parametrize("content", [b"", b"abc"])
def test_headerless_file_without_whole_samples_is_named(tmp_path, content):
    path = tmp_path / "a.raw"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.raw: \d bytes can't be"):
        read_headerless(path)


@pytest.mark.parametrize("write", [write_audio, lambda p, s, r: write_archive(p, {"a": s}, r)])
def test_full_disk_names_the_file_and_leaves_nothing(tmp_path, samples, monkeypatch, write):
    class FullFile:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def tell(self):
            return 0

        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    def open_full(self, *_, **__):
        self.touch()
        return FullFile()

    monkeypatch.setattr(Path, "open", open_full)
    monkeypatch.setattr(Path, "write_bytes", lambda self, content: open_full(self).write(content))
    with pytest.raises(EnvironmentProblem, match=r"audio\.wav: no space left on the disk"):
        write(tmp_path / "audio.wav", samples, 16000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_kernel_says_no_space_while_writing(samples, monkeypatch, tmp_path):
    """The genuine error, by a temporary file that is a link to /dev/full."""
    (tmp_path / "full").symlink_to("/dev/full")

    def write_bytes(self, content):
        with (tmp_path / "full").open("wb") as file:
            file.write(content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(EnvironmentProblem, match="no space left"):
        write_audio(tmp_path / "a.flac", samples, 16000)
    assert not (tmp_path / "a.flac").exists()
