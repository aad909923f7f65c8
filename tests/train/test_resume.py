"""Kill -9 and the same command again: weights bit-equal to those of an unbroken run."""

import csv
import re
import subprocess
import time
from functools import partial
from pathlib import Path

import mini_recipe
import pytest
import torch
from safetensors.torch import load_file

from espnet_prune.job_control import STOPPED_EXIT, TASK

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, repository, warm) -> Path:
    """An experiment whose stages all ran without a break."""
    folder = tmp_path_factory.mktemp("unbroken")
    mini_recipe.write_recipe(folder, repository)
    for main in ("collect_stats", "train_teacher", "prune"):
        mini_recipe.run(folder, main, warm=warm)
    return folder


def in_the_first_epoch(output: Path) -> bool:
    log = output / "train.log"
    return log.exists() and "1/3epoch" in log.read_text()


def after_a_checkpoint(output: Path) -> bool:
    return (output / "checkpoint.pth").exists()


def in_the_second_epoch(output: Path) -> bool:
    """Its updates are made and recorded, its checkpoint isn't written."""
    progress = output / "progress.csv"
    return progress.exists() and "\n2,4," in progress.read_text()


def at_the_end(output: Path) -> bool:
    return (output / "3epoch.pth").exists()


EARLY = (in_the_first_epoch, after_a_checkpoint)
LATE = (in_the_second_epoch, at_the_end)


def kill_then_finish(folder: Path, main: str, training: str, moments) -> None:
    """Kills at each moment, giving the same command again, then lets it end."""
    for moment in moments:
        mini_recipe.run_and_kill(folder, main, partial(moment, folder / training))
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


EACH_ONCE = [(epoch, update) for epoch in (1, 2, 3) for update in (1, 2, 3, 4)]


def check_pruned(folder: Path, unbroken: Path) -> None:
    name = "exp/l0/prune/latest.pth"
    assert same_pickle(folder / name, unbroken / name)
    assert updates(folder / "exp/l0/prune/progress.csv") == EACH_ONCE


def test_prune_goes_on_bit_equal_with_gates_and_the_size_s_price(unbroken, tmp_path):
    folder = mini_recipe.copy_without(unbroken, tmp_path / "killed", ["exp/l0"])
    kill_then_finish(folder, "prune", "exp/l0/prune", EARLY)
    check_pruned(folder, unbroken)
    keys = torch.load(folder / "exp/l0/prune/latest.pth", weights_only=True)
    assert any("log_alpha" in key for key in keys)
    assert any("log_price" in key for key in keys)


def test_prune_asked_to_stop_saves_and_goes_on_bit_equal(unbroken, tmp_path, monkeypatch):
    """As a scheduler's job does before its time limit."""
    folder = mini_recipe.copy_without(unbroken, tmp_path / "stopped", ["exp/l0"])
    output = folder / "exp/l0/prune"
    monkeypatch.setenv(TASK, str(tmp_path / "0"))
    process = subprocess.Popen(
        mini_recipe.command("prune"),
        cwd=folder,
        env=mini_recipe.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not in_the_first_epoch(output):
        assert process.poll() is None
        time.sleep(0.01)
    (tmp_path / "0.stop").touch()
    _, error = process.communicate()
    assert process.returncode == STOPPED_EXIT, error
    saved = rf"stopped as asked: {output.relative_to(folder)}: [01] of 3 epochs are saved"
    assert re.search(saved, error), error  # 0 where the machine is so busy that an epoch takes long
    if "1 of 3" in error:
        assert updates(output / "progress.csv") == EACH_ONCE[:4]
    (tmp_path / "0.stop").unlink()
    mini_recipe.run(folder, "prune")
    check_pruned(folder, unbroken)


@pytest.mark.slow
def test_prune_killed_late_goes_on_bit_equal(unbroken, tmp_path):
    folder = mini_recipe.copy_without(unbroken, tmp_path / "killed", ["exp/l0"])
    kill_then_finish(folder, "prune", "exp/l0/prune", LATE)
    check_pruned(folder, unbroken)


@pytest.mark.slow
def test_prune_killed_right_after_its_last_checkpoint(unbroken, tmp_path):
    """The state that such a kill leaves: no file of the last epoch, the link on the one before."""
    folder = mini_recipe.copy_without(unbroken, tmp_path / "killed", ["exp/l0/prune/.done.json"])
    training = folder / "exp/l0/prune"
    (training / "3epoch.pth").rename(training / "2epoch.pth")
    (training / "latest.pth").unlink()
    (training / "latest.pth").symlink_to("2epoch.pth")
    wrong = torch.load(training / "2epoch.pth", weights_only=True)
    torch.save(
        {key: torch.zeros_like(value) for key, value in wrong.items()}, training / "2epoch.pth"
    )
    mini_recipe.run(folder, "prune")
    check_pruned(folder, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("moments", [EARLY, LATE], ids=["early", "late"])
def test_teacher_goes_on_bit_equal(unbroken, tmp_path, moments):
    folder = mini_recipe.copy_without(unbroken, tmp_path / "killed", ["exp/teacher"])
    kill_then_finish(folder, "train_teacher", "exp/teacher/train", moments)
    name = "exp/teacher/model/model.safetensors"
    assert same_safetensors(folder / name, unbroken / name)
    assert updates(folder / "exp/teacher/train/progress.csv") == EACH_ONCE


@pytest.fixture(scope="module")
def finetuned(unbroken, warm) -> Path:
    """The same experiment, cut and finetuned."""
    mini_recipe.run(unbroken, "cut", warm=warm)
    mini_recipe.run(unbroken, "finetune", warm=warm)
    return unbroken


@pytest.mark.slow
@pytest.mark.parametrize("moments", [EARLY, LATE], ids=["early", "late"])
def test_finetune_goes_on_bit_equal(finetuned, tmp_path, moments):
    made = ["exp/l0/finetune", "exp/l0/model"]
    folder = mini_recipe.copy_without(finetuned, tmp_path / "killed", made)
    kill_then_finish(folder, "finetune", "exp/l0/finetune", moments)
    name = "exp/l0/model/model.safetensors"
    assert same_safetensors(folder / name, finetuned / name)
    assert updates(folder / "exp/l0/finetune/progress.csv") == EACH_ONCE


@pytest.mark.slow
def test_a_finished_stage_is_left_alone(finetuned):
    """Idempotence: the same commands again write nothing."""
    before = {p: p.lstat().st_mtime_ns for p in finetuned.rglob("*")}
    for main in ("collect_stats", "train_teacher", "prune", "cut", "finetune"):
        mini_recipe.run(finetuned, main)
    assert before == {p: p.lstat().st_mtime_ns for p in finetuned.rglob("*")}
