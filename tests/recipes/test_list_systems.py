"""The names that the driver loops over."""

import pytest

from espnet_prune.cli import run
from espnet_prune.errors import ConfigError
from espnet_prune.train.system_names import compared, system_names


def test_all_or_chosen_names_in_order(tmp_path, capsys):
    path = tmp_path / "systems.yaml"
    path.write_text("systems: {b: {}, a: {}}\n")
    assert system_names(path) == ["b", "a"]
    assert run(["list_systems", "--systems", str(path), "--only", "a"]) == 0
    assert capsys.readouterr().out == "a\n"


LADDER = """\
systems:
  low: {taken_from: run, target: 0.3}
  other: {}
  run: {target: 0.7, ladder: [0.3, 0.5]}
  half: {taken_from: run, target: 0.5}
  alone: {taken_from: absent}
"""


@pytest.mark.parametrize(
    ("only", "ordered", "taken"),
    [
        ("low other run half", "other run low half", "low half"),
        ("half other low", "half low other", "half low"),
        ("other", "other", ""),
    ],
)
def test_what_is_taken_from_a_run_comes_after_it(tmp_path, capsys, only, ordered, taken):
    path = tmp_path / "systems.yaml"
    path.write_text(LADDER)
    assert run(["list_systems", "--systems", str(path), "--only", only]) == 0
    assert run(["list_systems", "--systems", str(path), "--only", only, "--taken"]) == 0
    assert capsys.readouterr().out == f"{ordered}\n{taken}\n"


def test_no_name_is_lost_where_a_row_is_wrong(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text(LADDER)
    assert sorted(system_names(path)) == ["alone", "half", "low", "other", "run"]


@pytest.mark.parametrize(
    ("text", "only", "expected"),
    [
        ("system: {a: {}}\n", None, "key 'systems'"),
        ("systems: {}\n", None, "at least one"),
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
    path = tmp_path / "systems.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        system_names(path, only)


def test_a_source_that_is_no_name_is_left_to_the_stage_that_reads_the_row(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text("systems: {a: {taken_from: [b]}, b: {}}\n")
    assert system_names(path) == ["a", "b"]


def test_what_is_compared_with_is_made_or_decoded(tmp_path):
    (tmp_path / "before/decode").mkdir(parents=True)
    assert compared("before a? absent?", ["a"], tmp_path) == ["before", "a"]
    with pytest.raises(ConfigError, match="--compare_with: 'absent' is not among the systems"):
        compared("absent", ["a"], tmp_path)
