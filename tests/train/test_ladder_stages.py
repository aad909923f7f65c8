"""One run, two sizes, through the mains of the stages on noise; bit-equal after a kill."""

import csv
import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import mini_recipe
import pytest
import torch
from mini_recipe import run_here

from espnet_prune.errors import ConfigError, DataError
from espnet_prune.models.espnet.folder import trained_seconds

pytestmark = pytest.mark.timeout(900)
SYSTEMS = """\
systems:
  l0:
    method: l0_distill
    target: 0.4
    seed: 3
    ladder: [0.2]
    options: {budget: {tolerance: 0.03}}  # a head is that much of a model so small
  l0_20: {taken_from: l0, target: 0.2}
"""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, repository) -> Path:
    """The run with the ladder, without a break."""
    folder = tmp_path_factory.mktemp("ladder")
    mini_recipe.write_recipe(folder, repository)
    (folder / "conf/systems.yaml").write_text(SYSTEMS)
    for name in ("teacher", "prune", "finetune"):  # a loading process takes longer than an epoch
        path = folder / f"conf/{name}.yaml"
        path.write_text(f"{path.read_text()}num_workers: 0\n")
    for main in ("collect_stats", "train_teacher", "prune"):
        run_here(folder, main)
    return folder


def test_the_teacher_knows_the_longest_utterance_that_it_was_trained_on(unbroken):
    longest = (mini_recipe.RATE + 800 * 15) / mini_recipe.RATE
    assert trained_seconds(unbroken / "exp/teacher/model") == longest


def weights(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def check_same_as(unbroken: Path, folder: Path) -> None:
    for name in ("ladder/1.pth", "latest.pth"):
        one, other = (weights(f / "exp/l0/prune" / name) for f in (folder, unbroken))
        assert set(one) == set(other)
        assert all(torch.equal(one[key], other[key]) for key in one), name
    records = [
        json.loads((f / "exp/l0/prune/ladder/1.json").read_text()) for f in (folder, unbroken)
    ]
    assert records[0] == records[1]


def test_the_rung_is_the_model_of_its_epoch(unbroken):
    training = unbroken / "exp/l0/prune"
    record = json.loads((training / "ladder/1.json").read_text())
    assert (record["target"], record["epoch"], record["updates"]) == (0.2, 2, 8)
    assert record["closed"] == pytest.approx(0.2, abs=0.03)
    rung, last = weights(training / "ladder/1.pth"), weights(training / "latest.pth")
    assert int(rung["gated.updates"]) == 8 and int(last["gated.updates"]) == 12
    with (training / "progress.csv").open(newline="") as file:
        targets = [float(row["target_sparsity"]) for row in csv.DictReader(file)]
    assert targets[2:8] == pytest.approx([0.2] * 6) and targets[9:] == pytest.approx([0.4] * 3)


@pytest.mark.parametrize(
    "moment", [pytest.param("before the rung", marks=pytest.mark.slow), "after the rung"]
)
def test_stopped_at_the_rung_the_same_command_gives_the_same_bits(
    unbroken, tmp_path, monkeypatch, moment
):
    from espnet_prune.train import ladder_trainer

    class Killed(BaseException):
        """Nothing catches it, as nothing catches a kill."""

    def killed(model, training, epoch, epochs) -> None:
        if epoch == 2 and moment == "after the rung":
            keep(model, training, epoch, epochs)
        if epoch == 2:
            raise Killed

    keep = ladder_trainer.keep_rung
    folder = mini_recipe.copy_without(unbroken, tmp_path / "killed", ["exp/l0"])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ladder_trainer, "keep_rung", killed)
        run_here(folder, "prune")
    assert (folder / "exp/l0/prune/ladder/1.pth").exists() == (moment == "after the rung")
    run_here(folder, "prune")
    check_same_as(unbroken, folder)


@pytest.mark.slow
def test_killed_at_the_rung_and_later_it_goes_on_bit_equal(unbroken, tmp_path):
    folder = mini_recipe.copy_without(unbroken, tmp_path / "killed", ["exp/l0"])
    training = folder / "exp/l0/prune"
    for name in ("ladder/1.pth", "ladder/1.json", "2epoch.pth"):
        mini_recipe.run_and_kill(folder, "prune", partial(Path.exists, training / name))
    run_here(folder, "prune")
    check_same_as(unbroken, folder)


@pytest.mark.slow
def test_of_two_processes_one_keeps_the_rung_and_one_takes_it(unbroken, tmp_path):
    folder = mini_recipe.copy_without(unbroken, tmp_path / "two", ["exp/l0"])
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for system in ("l0", "l0_20"):
        python, *words = mini_recipe.command("prune", system)
        environment = mini_recipe.environment()
        subprocess.run([python, *two, *words], cwd=folder, env=environment, check=True)
    run_here(folder, "cut", "l0_20")
    assert int(weights(folder / "exp/l0/prune/ladder/1.pth")["gated.updates"]) == 8
    assert record_of(folder / "exp/l0_20")["shared"]["updates"] == 8


@pytest.fixture(scope="module")
def both(unbroken, tmp_path_factory) -> Path:
    """The run and the system that takes its rung, cut and finetuned."""
    folder = tmp_path_factory.mktemp("both") / "recipe"
    shutil.copytree(unbroken, folder, symlinks=True)
    for main in ("prune", "cut", "finetune"):
        for system in ("l0", "l0_20"):
            run_here(folder, main, system)
    return folder / "exp"


def record_of(folder: Path) -> dict:
    return json.loads((folder / "system.json").read_text())


def test_both_sizes_are_cut_with_as_many_updates_and_the_shared_ones_named(both):
    whole, rung = record_of(both / "l0"), record_of(both / "l0_20")
    for record, target in ((whole, 0.4), (rung, 0.2)):
        assert record["target"] == target
        assert record["sparsity"]["value"] == pytest.approx(target, abs=0.03)
        assert record["masked_equals_cut"]["max_difference"] <= 1e-4
        assert sum(record["updates"].values()) == 24
    assert rung["updates"] == {"prune": 8, "finetune": 16}
    assert (rung["method"], rung["seed"]) == ("l0_distill", 3)
    seconds = json.loads((both / "l0/prune/train_seconds.json").read_text())["epochs"]
    shared = {"system": "l0", "updates": 8, "seconds": round(seconds["1"] + seconds["2"], 3)}
    assert rung["shared"] == shared and "shared" not in whole
    assert rung["train_seconds"]["prune"] == shared["seconds"] < whole["train_seconds"]["prune"]


def test_the_rung_outlives_the_run(both, tmp_path):
    """Its state is a copy, not a link into a folder that may go."""
    assert not (both / "l0_20/prune/latest.pth").is_symlink()
    one, other = (weights(both / n) for n in ("l0_20/prune/latest.pth", "l0/prune/ladder/1.pth"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_what_is_not_there_to_take_is_named_with_the_remedy(unbroken, tmp_path):
    folder = mini_recipe.copy_without(unbroken, tmp_path / "copy", ["exp/l0/prune/ladder/1.json"])
    with pytest.raises(DataError, match="ladder: no state of the size 0.2; add it to the ladder"):
        run_here(folder, "prune", "l0_20")
    (folder / "exp/l0/prune/.done.json").unlink()
    with pytest.raises(DataError, match="prune: the run isn't finished; run stage 8 of 'l0'"):
        run_here(folder, "prune", "l0_20")


def test_a_run_made_with_other_options_gives_no_rung(unbroken, tmp_path):
    folder = mini_recipe.copy_without(unbroken, tmp_path / "copy", [])
    text = SYSTEMS.replace("seed: 3", "seed: 5")
    (folder / "conf/systems.yaml").write_text(text)
    with pytest.raises(ConfigError, match="l0/prune: .*another configuration .seed: 3 -> 5"):
        run_here(folder, "prune", "l0_20")


def test_more_sizes_than_epochs_are_refused_before_anything_is_made(unbroken, tmp_path):
    folder = mini_recipe.copy_without(unbroken, tmp_path / "copy", ["exp/l0"])
    text = SYSTEMS.replace("[0.2]", "[0.1, 0.2, 0.3]")
    (folder / "conf/systems.yaml").write_text(text)
    with pytest.raises(ConfigError, match="4 sizes.*3 stretches of 4 updates; give more epochs"):
        run_here(folder, "prune")
    assert not (folder / "exp/l0/prune").exists()
