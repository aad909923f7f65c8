"""Kill -9 and the same command again: weights bit-equal to those of an unbroken run."""

import csv
from pathlib import Path

import mini_recipe
import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, repository) -> Path:
    """An experiment whose stages all ran without a break."""
    folder = tmp_path_factory.mktemp("unbroken")
    mini_recipe.write_recipe(folder, repository)
    for main in ("collect_stats", "train_teacher", "prune"):
        mini_recipe.run(folder, main)
    return folder


def kill_twice_then_finish(folder: Path, main: str, training: str) -> None:
    """Kills in the first epoch, then right after a checkpoint, then lets it end."""
    output = folder / training
    log = output / "train.log"
    mini_recipe.run_and_kill(folder, main, lambda: log.exists() and "1/3epoch" in log.read_text())
    checkpoint = output / "checkpoint.pth"
    assert not checkpoint.exists()
    mini_recipe.run_and_kill(folder, main, checkpoint.exists)
    mini_recipe.run(folder, main)


def same_pickle(one: Path, other: Path) -> bool:
    a, b = (torch.load(p, map_location="cpu", weights_only=True) for p in (one, other))
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


def same_safetensors(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


def updates(path: Path) -> list[tuple[int, int]]:
    with path.open(newline="") as file:
        return [(int(row["epoch"]), int(row["update"])) for row in csv.DictReader(file)]


def test_prune_goes_on_bit_equal_with_gates_and_multipliers(unbroken, tmp_path):
    folder = mini_recipe.copy_without(unbroken, tmp_path / "killed", ["exp/l0"])
    kill_twice_then_finish(folder, "prune", "exp/l0/prune")
    name = "exp/l0/prune/latest.pth"
    assert same_pickle(folder / name, unbroken / name)
    keys = torch.load(folder / name, weights_only=True)
    assert any("log_alpha" in key for key in keys)
    assert any("lambda_linear" in key for key in keys)
    each_once = [(epoch, update) for epoch in (1, 2, 3) for update in (1, 2, 3, 4)]
    assert updates(folder / "exp/l0/prune/progress.csv") == each_once


@pytest.mark.slow
def test_teacher_goes_on_bit_equal(unbroken, tmp_path):
    folder = mini_recipe.copy_without(unbroken, tmp_path / "killed", ["exp/teacher"])
    kill_twice_then_finish(folder, "train_teacher", "exp/teacher/train")
    name = "exp/teacher/model/model.safetensors"
    assert same_safetensors(folder / name, unbroken / name)


@pytest.mark.slow
def test_finetune_goes_on_bit_equal(unbroken, tmp_path):
    mini_recipe.run(unbroken, "cut")
    folder = mini_recipe.copy_without(unbroken, tmp_path / "killed", [])
    mini_recipe.run(unbroken, "finetune")
    kill_twice_then_finish(folder, "finetune", "exp/l0/finetune")
    name = "exp/l0/model/model.safetensors"
    assert same_safetensors(folder / name, unbroken / name)
