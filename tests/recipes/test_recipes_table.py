"""Every recipe configuration is in tests/recipes.csv, and the table is checked as it says."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def check_recipe():
    """The module utils/check_recipe.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("check_recipe", ROOT / "utils/check_recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configs() -> set[str]:
    return {str(p.relative_to(ROOT)) for p in ROOT.glob("egs/*/*/conf/**/*.yaml")}


def test_every_config_is_in_the_table(check_recipe):
    listed = {row.config for row in check_recipe.read_table()}
    assert configs() - listed == set(), "add a row to tests/recipes.csv"
    assert listed - configs() == set(), "these rows of tests/recipes.csv have no file"


def test_no_config_is_listed_twice(check_recipe):
    listed = [row.config for row in check_recipe.read_table()]
    assert len(listed) == len(set(listed))


def test_every_row_demands_something(check_recipe):
    assert [r.config for r in check_recipe.read_table() if not r.makes and not r.bounds] == []


def test_every_recipe_has_what_the_driver_needs():
    for run in ROOT.glob("egs/*/*/run.sh"):
        names = {"teacher", "prune", "finetune", "decode", "profile", "systems"}
        if "--teacher " in run.read_text():  # imported, not trained
            names.remove("teacher")
        for name in names:
            assert (run.parent / f"conf/{name}.yaml").is_file(), f"{run.parent}: {name}.yaml"


@pytest.mark.parametrize(
    "text", ["teacher wer <= ", "teacher wer.test < 3", "teacher wer.test <= low", "wer <= 3"]
)
def test_malformed_bound_is_an_error(check_recipe, text):
    with pytest.raises(ValueError):
        check_recipe.Bound.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a wer.test/joint.wer <= 10", None),
        ("a wer.test/joint.wer <= 9.9", "is 10.0, expected <= 9.9"),
        ("a sparsity >= 0.5", "is 0.4, expected >= 0.5"),
        ("a wer.dev.wer <= 1", "not in the report"),
        ("b sparsity >= 0", "no system 'b'"),
        ("a name >= 0", "is 'a', expected a number"),
    ],
)
def test_bounds(check_recipe, text, expected):
    wer = {"test/joint": {"wer": 10.0}}
    report = {"systems": [{"name": "a", "sparsity": 0.4, "wer": wer}]}
    problem = check_recipe.Bound.parse(text).problem(report)
    assert problem is None if expected is None else expected in problem


def test_missing_files_and_missed_bounds_are_reported(check_recipe, tmp_path):
    row = check_recipe.Row("x.yaml", ("made", "lost"), (check_recipe.Bound.parse("a n <= 1"),))
    (tmp_path / "made").touch()
    found = check_recipe.problems([row], tmp_path)
    assert len(found) == 2 and "lost is missing" in found[0] and "report.json" in found[1]
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.json").write_text(json.dumps({"systems": [{"name": "a", "n": 2}]}))
    found = check_recipe.problems([row], tmp_path)
    assert found[1:] == ["a n is 2, expected <= 1.0"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"systems": [3]}', '{"systems": [{}]}'])
def test_a_damaged_report_is_named(check_recipe, tmp_path, text):
    row = check_recipe.Row("x.yaml", (), (check_recipe.Bound.parse("a n <= 1"),))
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.json").write_text(text)
    (found,) = check_recipe.problems([row], tmp_path)
    assert "report.json is damaged" in found and "run stage 13 (report) again" in found


def test_a_folder_without_rows_is_an_error(check_recipe, tmp_path):
    assert check_recipe.main([str(tmp_path), str(tmp_path)]) == 2
