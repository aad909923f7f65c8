"""What a line of wav.scp says is written as it is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_prune.data.entry import Entry


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("/a b/c.flac", Entry("/a b/c.flac")),
        ("speed:0.9:/a b/c.flac", Entry("/a b/c.flac", speed=0.9)),
        ("speed:1.1:x.ark:12", Entry("x.ark:12", speed=1.1)),
        ("cut:1.5:2.25:a.wav", Entry("a.wav", start=1.5, end=2.25)),
        ("cut:1.5::channel:2:a.sph", Entry("a.sph", channel=2, start=1.5)),
        ("speed:0.9:cut:0.0:2.0:sph2pipe a |", Entry("sph2pipe a |", end=2.0, speed=0.9)),
        ("speed:fast:x.wav", Entry("speed:fast:x.wav")),
        ("cut:1:x.wav", Entry("cut:1:x.wav")),
    ],
)
def test_parts_of_a_line(text, entry):
    assert Entry.parse(text) == entry and str(entry) == text


seconds = st.floats(0, 1e5)
sources = st.text(min_size=1).filter(lambda text: not text.startswith(("speed:", "cut:", "chan")))


@given(sources, st.none() | st.integers(1, 99), seconds, st.none() | seconds, st.floats(0.5, 2.0))
def test_whatever_is_said_of_any_source_comes_back(source, channel, start, end, speed):
    entry = Entry(source, channel, start, end, speed)
    assert Entry.parse(str(entry)) == entry


def test_what_kind_of_source_it_is():
    assert Entry("a.ark:12").path == "a.ark" and Entry("a.ark:12").is_archived
    assert Entry("a.ark").path == "a.ark" and not Entry("a.ark").is_archived
    assert Entry("cat a.wav | ").is_pipe and not Entry("a|b.wav").is_pipe
    assert Entry("a.wav").is_file
    others = (Entry("a.wav", 2), Entry("a.wav", end=1.0), Entry("a.ark:1"), Entry("cat a |"))
    assert not any(entry.is_file for entry in others)
