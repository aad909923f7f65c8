"""What a line of wav.scp says is written as it is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_prune.data.entry import Entry


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("/a b/c.flac", Entry("/a b/c.flac")),
        ("speed:0.9:/a b/c.flac", Entry("/a b/c.flac", 0.9)),
        ("speed:1.1:x.ark:12", Entry("x.ark:12", 1.1)),
        ("speed:fast:x.wav", Entry("speed:fast:x.wav")),
    ],
)
def test_parts_of_a_line(text, entry):
    assert Entry.parse(text) == entry and str(entry) == text


@given(st.text(min_size=1).filter(lambda t: not t.startswith("speed:")), st.floats(0.5, 2.0))
def test_any_source_and_speed_come_back(source, speed):
    assert Entry.parse(str(Entry(source, speed))) == Entry(source, speed)


def test_the_file_of_a_place_in_an_archive():
    assert Entry("a.ark:12").path == "a.ark" and Entry("a.ark:12").is_archived
    assert Entry("a.ark").path == "a.ark" and not Entry("a.ark").is_archived
