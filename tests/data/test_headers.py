"""What a file's header says is never believed: whole files are read whole, all others are named."""

import io
import struct
from collections.abc import Callable

import numpy
import pytest
import soundfile

from espnet_prune.data.decode import as_value_errors, decode

RATE = 16000
CHECKED = [
    ("WAV", "PCM_16"),
    ("WAV", "ULAW"),
    ("WAV", "GSM610"),
    ("WAV", "FLOAT"),
    ("WAVEX", "PCM_16"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AIFF", "GSM610"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("AU", "PCM_16"),
    ("NIST", "PCM_16"),
    ("NIST", "ULAW"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
IDS = ["-".join(kind) for kind in CHECKED]
Encode = Callable[..., bytes]


def noise(samples: int, seed: int = 0) -> numpy.ndarray:
    draw = numpy.random.default_rng(seed)
    return (8000 * numpy.sin(numpy.arange(samples) * 0.05) + draw.normal(0, 500, samples)).astype(
        numpy.int16
    )


def encode(kind: str, subtype: str, samples: int = 48000, seed: int = 0) -> bytes:
    file = io.BytesIO()
    values = noise(samples, seed)
    if subtype == "FLOAT":
        values = values / 32768
    soundfile.write(file, values, RATE, format=kind, subtype=subtype)
    return file.getvalue()


def read(content: bytes) -> numpy.ndarray:
    """The samples, or a ValueError."""
    with as_value_errors():
        return decode(io.BytesIO(content)).samples


@pytest.mark.parametrize(("kind", "subtype"), CHECKED, ids=IDS)
def test_whole_files_are_read_whole(kind, subtype):
    content = encode(kind, subtype)
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        told = file.frames
    found = decode(io.BytesIO(content))
    assert len(found.samples) == told >= 48000 and not found.notes


@pytest.mark.parametrize("left", [0.4, 0.9])
@pytest.mark.parametrize(("kind", "subtype"), CHECKED, ids=IDS)
def test_cut_files_are_refused(kind, subtype, left):
    content = encode(kind, subtype)
    with pytest.raises(ValueError):
        read(content[: int(left * len(content))])


@pytest.mark.parametrize(("kind", "subtype"), CHECKED, ids=IDS)
def test_two_recordings_in_one_file_are_refused(kind, subtype):
    with pytest.raises(ValueError):
        read(encode(kind, subtype) + encode(kind, subtype, 32000, seed=1))


def patched(content: bytes, place: bytes, offset: int, value: bytes) -> bytes:
    """With other bytes so far behind a mark."""
    at = content.index(place) + offset
    return content[:at] + value + content[at + len(value) :]


def flac_total(content: bytes, samples: int) -> bytes:
    word = int.from_bytes(content[18:26], "big") >> 36 << 36 | samples
    return content[:18] + word.to_bytes(8, "big") + content[26:]


# a header that was never brought up to date: 500 samples of 48,000
STALE = {
    "wav": lambda: patched(encode("WAV", "PCM_16"), b"data", 4, struct.pack("<I", 1000)),
    "wav, both sizes": lambda: patched(
        patched(encode("WAV", "PCM_16"), b"data", 4, struct.pack("<I", 1000)),
        b"RIFF",
        4,
        struct.pack("<I", 1036),
    ),
    "wave64": lambda: patched(encode("W64", "PCM_16"), b"data", 16, struct.pack("<Q", 1024)),
    "rf64": lambda: patched(encode("RF64", "PCM_16"), b"ds64", 16, struct.pack("<Q", 1000)),
    "aiff": lambda: patched(encode("AIFF", "PCM_16"), b"SSND", 4, struct.pack(">I", 1008)),
    "caf": lambda: patched(encode("CAF", "PCM_16"), b"data", 4, struct.pack(">q", 1004)),
    "au": lambda: patched(encode("AU", "PCM_16"), b".snd", 8, struct.pack(">I", 1000)),
    "sphere": lambda: encode("NIST", "PCM_16").replace(b"_count -i 48000", b"_count -i 00500"),
    "flac": lambda: flac_total(encode("FLAC", "PCM_16"), 500),
    "flac, too many": lambda: flac_total(encode("FLAC", "PCM_16"), 50000),
}


@pytest.mark.parametrize("make", STALE.values(), ids=STALE.keys())
def test_stale_headers_are_refused(make):
    with pytest.raises(ValueError, match="header|follow"):
        read(make())


def zeros(content: bytes, *places: tuple[bytes, int, int], value: bytes = b"\0") -> bytes:
    for place, offset, width in places:
        content = patched(content, place, offset, value * width)
    return content


# a header written before the length was known, as by programs that write into a pipe
STREAMED = {
    "wav": lambda: zeros(encode("WAV", "PCM_16"), (b"RIFF", 4, 4), (b"data", 4, 4)),
    "wav, samples alone": lambda: zeros(encode("WAV", "PCM_16"), (b"data", 4, 4)),
    "wav of ffmpeg": lambda: zeros(
        encode("WAV", "PCM_16"), (b"RIFF", 4, 4), (b"data", 4, 4), value=b"\xff"
    ),
    "wav of sox": lambda: patched(
        patched(encode("WAV", "PCM_16"), b"data", 4, struct.pack("<I", 0x7FFFF000)),
        b"RIFF",
        4,
        struct.pack("<I", 0x7FFFF024),
    ),
    "wav, mu-law": lambda: zeros(encode("WAV", "ULAW"), (b"RIFF", 4, 4), (b"data", 4, 4)),
    "wave64": lambda: zeros(encode("W64", "PCM_16"), (b"riff", 16, 8), (b"data", 16, 8)),
    "aiff": lambda: zeros(encode("AIFF", "PCM_16"), (b"FORM", 4, 4), (b"SSND", 4, 4)),
    "caf": lambda: zeros(encode("CAF", "PCM_16"), (b"data", 4, 8), value=b"\xff"),
    "au": lambda: zeros(encode("AU", "PCM_16"), (b".snd", 8, 4)),
    "au, unknown": lambda: zeros(encode("AU", "PCM_16"), (b".snd", 8, 4), value=b"\xff"),
    "flac": lambda: flac_total(encode("FLAC", "PCM_16"), 0),
}


@pytest.mark.parametrize("make", STREAMED.values(), ids=STREAMED.keys())
def test_streamed_files_have_all_their_samples(make):
    found = read(make())
    expected = noise(48000)
    assert len(found) == 48000
    if "mu-law" not in str(make):
        assert numpy.abs(found.astype(int) - expected).max() < 300


@pytest.mark.parametrize("make", STREAMED.values(), ids=STREAMED.keys())
def test_streamed_files_that_another_follows_are_refused_or_read(make):
    """Where no size is known, what follows could only be told by its own mark."""
    try:
        found = read(make() + encode("FLAC", "PCM_16", 16000))
    except ValueError:
        return
    assert len(found) >= 48000


@pytest.mark.parametrize("tail", [b"\0" * 700, b"TAG" + bytes(125)], ids=["padding", "tag"])
@pytest.mark.parametrize("kind", ["WAV", "AIFF", "W64"])
def test_what_holds_no_sound_may_follow(kind, tail):
    assert len(read(encode(kind, "PCM_16") + tail)) == 48000


@pytest.mark.parametrize("kind", ["NIST", "AU"])
def test_zeros_behind_what_a_header_tells_of_are_no_samples(kind):
    assert len(read(encode(kind, "PCM_16") + b"\0" * 700)) == 48000


def test_a_chunk_behind_the_samples_of_wave64_is_no_sound():
    """libsndfile reads on to the file's end."""
    content = encode("W64", "PCM_16")
    name = b"list" + content[4:16]
    size = struct.pack("<Q", len(name) + 8 + 100)
    assert len(read(content + name + size + b"x" * 100)) == 48000


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def riff(inner: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(inner)) + inner


def test_chunks_of_odd_sizes_before_and_behind_the_samples():
    content = encode("WAV", "PCM_16")
    head, samples = content[: content.index(b"data")], content[content.index(b"data") :]
    inner = head[8:] + chunk(b"LIST", b"INFOx") + samples + chunk(b"bext", b"abc")
    assert len(read(riff(inner))) == 48000


def test_samples_of_an_odd_size_may_lack_their_padding():
    content = encode("WAV", "PCM_U8", 4001)
    content = content[: content.index(b"data") + 8 + 4001]
    assert len(read(riff(content[8:]))) == 4001
    assert len(read(riff(content[8:] + chunk(b"LIST", b"INFO")))) == 4001


def test_a_wav_without_samples_is_no_stream():
    content = encode("WAV", "PCM_16", 0) + chunk(b"LIST", b"INFO")
    assert len(read(riff(content[8:]))) == 0


def ogg_pages(content: bytes) -> list[bytes]:
    found = []
    while content:
        head = 27 + content[26]
        size = head + sum(content[27:head])
        found.append(content[:size])
        content = content[size:]
    return found


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_without_its_last_or_a_middle_page_is_refused(subtype):
    pages = ogg_pages(encode("OGG", subtype, 160000))
    assert len(read(b"".join(pages))) == 160000
    for lost, message in ((len(pages) - 1, "isn't marked as the last"), (4, "a page is missing")):
        with pytest.raises(ValueError, match=message):
            read(b"".join(pages[:lost] + pages[lost + 1 :]))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_damaged_page_of_ogg_is_refused(subtype):
    pages = ogg_pages(encode("OGG", subtype, 160000))
    damaged = bytearray(pages[4])
    damaged[200] ^= 0xFF
    with pytest.raises(ValueError, match="samples, 160000 by its header"):
        read(b"".join([*pages[:4], bytes(damaged), *pages[5:]]))


def test_sphere_compressed_by_shorten_says_so():
    content = encode("NIST", "PCM_16").replace(b"-s3 pcm\n", b"-s26 pcm,embedded-shorten-v2.00\n")
    with pytest.raises(ValueError, match="compressed by shorten; write it anew by sph2pipe"):
        read(content)


def test_mp3_of_two_recordings_is_refused_though_tags_may_follow():
    first = encode("MP3", "MPEG_LAYER_III")
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 1, 1 << 31) + bytes(8)
    assert len(read(first + b"TAG" + bytes(125))) == 48000
    assert len(read(first + bytes(2000) + ape)) == 48000
    with pytest.raises(ValueError, match=r"\d+ bytes follow the \d+ that its header tells of"):
        read(first + first)


@pytest.mark.parametrize("kilobits", [0.1, 0.5, 0.9], ids=["high", "middle", "low"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_mp3_without_a_header_tells_where_it_was_cut(rate, kilobits):
    file = io.BytesIO()
    options = {"bitrate_mode": "CONSTANT", "compression_level": kilobits}
    soundfile.write(file, noise(40000), rate, format="MP3", **options)
    content = file.getvalue().replace(b"Info", bytes(4))  # a frame of silence instead
    assert not decode(io.BytesIO(content)).notes
    assert not decode(io.BytesIO(content + b"TAG" + bytes(125))).notes
    (note,) = decode(io.BytesIO(content[:-50])).notes
    assert note == "it ends within a frame, so that its end may be missing"


def test_a_format_whose_size_cannot_be_checked_is_named():
    assert (
        "VOC, has no size that is checked" in decode(io.BytesIO(encode("VOC", "PCM_16"))).notes[0]
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s9--0.flac\n", "git annex get"),
        (b"<!DOCTYPE html>\n<title>Not found</title>", "a web page"),
    ],
)
def test_what_a_download_left_instead_of_audio_is_named(content, reason):
    with pytest.raises(ValueError, match=reason):
        decode(io.BytesIO(content))
