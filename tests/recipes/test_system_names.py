"""The names that the driver loops over."""

import pytest

from espnet_prune.errors import ConfigError
from espnet_prune.train.recipe import read_recipe
from espnet_prune.train.system_names import compared, system_names, taken_from


def names_of(tmp_path, text: str, only: str | None = None) -> list[str]:
    """The names of a file with this text."""
    path = tmp_path / "systems.yaml"
    path.write_text(text)
    return system_names(read_recipe({"systems": path}).systems, str(path), only)


def test_all_or_chosen_names_in_order(tmp_path):
    assert names_of(tmp_path, "systems: {b: {}, a: {}}\n") == ["b", "a"]
    assert names_of(tmp_path, "systems: {b: {}, a: {}}\n", "a") == ["a"]


LADDER = """\
systems:
  low: {taken_from: run, target: 0.3}
  other: {}
  run: {target: 0.7, ladder: [0.3, 0.5]}
  half: {taken_from: run, target: 0.5}
  alone: {taken_from: absent}
"""


@pytest.mark.parametrize(
    ("only", "ordered"),
    [
        ("low other run half", "other run low half"),
        ("half other low", "half low other"),
        ("other", "other"),
    ],
)
def test_what_is_taken_from_a_run_comes_after_it(tmp_path, only, ordered):
    assert names_of(tmp_path, LADDER, only) == ordered.split()


def test_no_name_is_lost_where_a_row_is_wrong(tmp_path):
    assert sorted(names_of(tmp_path, LADDER)) == ["alone", "half", "low", "other", "run"]


@pytest.mark.parametrize(
    ("text", "only", "expected"),
    [
        ("systems: {teacher: {}}\n", None, "can't be called 'teacher'"),
        ("systems: {l0_50: {}}\n", "l0_5", "did you mean 'l0_50'"),
        ("systems: {a: {}, b: {}}\n", "a b a", "--systems: 'a' comes twice"),
        ("systems: {stats: {}}\n", None, "can't be called 'stats'.*another folder of exp/TAG"),
        ("systems: {a/b: {}}\n", None, "systems: 'a/b' is not a folder's name"),
        ("systems: {..: {}}\n", None, "systems: '..' is not"),
        ("systems: {50: {}}\n", None, "systems: 50 is not.*quotes"),
    ],
)
def test_errors(tmp_path, text, only, expected):
    with pytest.raises(ConfigError, match=expected):
        names_of(tmp_path, text, only)


def test_a_source_that_is_no_name_is_left_to_who_reads_the_row(tmp_path):
    assert names_of(tmp_path, "systems: {a: {taken_from: [b]}, b: {}}\n") == ["a", "b"]
    assert taken_from({"taken_from": ["b"]}) is None


def test_what_is_compared_with_is_made_or_decoded(tmp_path):
    (tmp_path / "before/decode").mkdir(parents=True)
    assert compared("before a? absent?", ["a"], tmp_path) == ["before", "a"]
    with pytest.raises(ConfigError, match="--compare_with: 'absent' is not among the systems"):
        compared("absent", ["a"], tmp_path)
