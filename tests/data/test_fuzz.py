"""Readers given anything: what they read is whole, and all that they raise is theirs.

The same few inputs in every run; as tests marked slow, thousands of others.
"""

import io
import struct
import tempfile
from pathlib import Path

import numpy
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.characters import invisible_in, without_invisible
from espnet_prune.data.decode import as_value_errors, decode
from espnet_prune.data.excerpt import Reading
from espnet_prune.data.fix import fix_data
from espnet_prune.data.flat_headers import SPHERE_NEEDS
from espnet_prune.data.kaldi_dir import read_data, read_map
from espnet_prune.data.kaldi_segments import channel_of, segment_of
from espnet_prune.data.mp3_header import told_bytes
from espnet_prune.errors import DataError

RATE, SAMPLES = 16000, 6000
# format, coding, and where its header lies, in which most damage is done
FORMATS = [
    ("WAV", "PCM_16", 60),
    ("WAV", "GSM610", 70),
    ("RF64", "PCM_16", 110),
    ("W64", "PCM_16", 120),
    ("AIFF", "PCM_16", 70),
    ("CAF", "PCM_16", 120),
    ("AU", "PCM_16", 32),
    ("NIST", "PCM_16", 260),
    ("FLAC", "PCM_16", 60),
    ("OGG", "VORBIS", 120),
    ("OGG", "OPUS", 120),
    ("MP3", "MPEG_LAYER_III", 80),
]
IDS = [f"{kind}-{subtype}" for kind, subtype, _ in FORMATS]
# how many inputs, and whether others each time
RUNS = [
    pytest.param(settings(max_examples=25), id="few"),
    pytest.param(
        settings(max_examples=3000, derandomize=False, suppress_health_check=list(HealthCheck)),
        id="many",
        marks=[pytest.mark.slow, pytest.mark.timeout(3600)],
    ),
]
every_format = pytest.mark.parametrize(("kind", "subtype", "head"), FORMATS, ids=IDS)
every_run = pytest.mark.parametrize("run", RUNS)


def encode(kind: str, subtype: str, samples: int = SAMPLES) -> bytes:
    file = io.BytesIO()
    noise = numpy.random.default_rng(0).normal(0, 3000, samples).astype(numpy.int16)
    soundfile.write(file, noise, RATE, format=kind, subtype=subtype)
    return file.getvalue()


def read(content: bytes) -> numpy.ndarray:
    with as_value_errors():
        return decode(io.BytesIO(content)).samples


def whole(content: bytes) -> int:
    return len(read(content))


@every_run
@every_format
def test_a_damaged_recording_is_read_or_a_value_error(kind, subtype, head, run):
    content = encode(kind, subtype)
    places = st.integers(0, head) | st.integers(0, len(content) - 1)
    changes = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)

    @run
    @given(changes, st.integers(0, len(content)) | st.just(len(content)), st.binary(max_size=40))
    def check(changes, end, behind):
        damaged = bytearray(content)
        for place, value in changes:
            damaged[place] = value
        try:
            samples = read(bytes(damaged[:end]) + behind)
        except ValueError:
            return
        assert samples.dtype == numpy.int16

    check()


@every_run
@every_format
def test_what_is_left_of_a_recording_is_never_taken_for_all_of_it(kind, subtype, head, run):
    content = encode(kind, subtype)
    expected = whole(content)

    @run
    @given(st.integers(0, len(content) - 1))
    def check(end):
        try:
            found = whole(content[:end])
        except ValueError:
            return
        assert found == expected, "samples are missing, and nothing was said"

    check()


@every_run
@every_format
def test_what_follows_a_recording_is_never_taken_for_sound(kind, subtype, head, run):
    content = encode(kind, subtype)
    expected, other = whole(content), encode(kind, subtype, 4000)

    @run
    @given(st.binary(min_size=1, max_size=3000) | st.integers(1, len(other)))
    def check(behind):
        try:
            found = whole(content + (behind if isinstance(behind, bytes) else other[:behind]))
        except ValueError:
            return
        assert found == expected, "what follows was read as sound"

    check()


@every_run
def test_any_bytes_are_no_recording_or_one(run):
    marks = st.sampled_from(
        [
            b"",
            b"RIFF",
            b"RF64",
            b"FORM",
            b"caff",
            b".snd",
            b"NIST_1A\n",
            b"fLaC",
            b"OggS",
            b"ID3",
        ]
    )

    @run
    @given(marks, st.binary(max_size=400))
    def check(mark, content):
        try:
            read(mark + content)
        except ValueError:
            pass
        told_bytes(io.BytesIO(mark + content))

    check()


@every_run
def test_any_sphere_header_is_read_or_a_value_error(run):
    fields = st.lists(
        st.tuples(
            st.sampled_from([*(n.decode() for n in SPHERE_NEEDS), "sample_rate", "sample_coding"]),
            st.sampled_from(["-i", "-r", "-s3", "-s1"]),
            st.integers(-1, 2**40) | st.text(max_size=5),
        ),
        max_size=8,
    )

    @run
    @given(fields, st.sampled_from(["1024", "0", "9999999", "-1", "x"]), st.binary(max_size=300))
    def check(fields, size, samples):
        lines = "".join(f"{name} {kind} {value}\n" for name, kind, value in fields)
        header = f"NIST_1A\n   {size}\n{lines}end_head\n".encode(errors="replace")
        try:
            read(header.ljust(1024, b"\0") + samples)
        except ValueError:
            pass

    check()


@every_run
def test_any_place_of_an_archive_is_a_recording_or_an_error_of_ours(run, tmp_path):
    record = encode("WAV", "PCM_16", 50)
    framed = b"AUDIO\4" + struct.pack("<I", len(record)) + record
    matrix = b"\0BFM \4" + struct.pack("<i", 2) + b"\4" + struct.pack("<i", 1) + bytes(8)
    content = b"a " + record + b"b " + framed + b"c " + matrix + b"d  [ 1 2 ]\n"

    @run
    @given(
        st.integers(0, len(content) + 5),
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4),
    )
    def check(offset, changes):
        damaged = bytearray(content)
        for place, value in changes:
            damaged[place] = value
        (tmp_path / "a.ark").write_bytes(damaged)
        try:
            read_audio(f"{tmp_path / 'a.ark'}:{offset}", "here")
        except DataError as error:
            assert "a.ark" in str(error)

    check()


words = st.text(alphabet="ab\u200b\ufeff\u00e9 \t\r/|-:.019\x00\x85", max_size=8)
lists = st.lists(words, max_size=5).map("\n".join)


@every_run
def test_any_list_is_read_or_an_error_of_ours(run, tmp_path):
    @run
    @given(lists | st.binary(max_size=40))
    def check(content):
        path = tmp_path / "text"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            values = read_map(path)
        except DataError as error:
            assert str(path) in str(error)
            return
        assert list(values) == sorted(values)
        assert not any(invisible_in(key, joiners=True) for key in values)

    check()


@every_run
def test_any_directory_is_read_and_fixed_or_an_error_of_ours(run):
    names = ("wav.scp", "text", "utt2spk", "spk2utt", "segments", "reco2file_and_channel")

    @run
    @given(st.lists(st.none() | lists, min_size=len(names), max_size=len(names)))
    def check(contents):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, content in zip(names, contents, strict=True):
                if content is not None:
                    (folder / file).write_bytes(content.encode())
            for use in (read_data, lambda folder: fix_data(folder, Reading())):
                try:
                    use(folder)
                except DataError as error:
                    assert str(folder) in str(error)

    check()


@every_run
def test_any_part_and_channel_is_one_or_an_error_of_ours(run):
    odd = st.sampled_from(["-1", "nan", "inf", "1e400", "0", "A", "B"])
    numbers = st.floats(-2, 9).map(str) | odd
    line = st.lists(numbers | words, max_size=5).map(" ".join)

    @run
    @given(line)
    def check(value):
        for parse in (segment_of, channel_of):
            try:
                found = parse(value, "here")
            except DataError as error:
                assert "here" in str(error)
                continue
            if parse is channel_of:
                assert found >= 1
            else:
                entry = found[1]
                assert entry.start >= 0 and (entry.end is None or entry.end > entry.start)

    check()


@given(st.text())
def test_a_text_without_invisible_characters_has_none(text):
    assert invisible_in(without_invisible(text)) == []
