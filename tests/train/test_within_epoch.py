"""Trainings that end between two updates of an epoch go on bit-equal."""

import csv
import random
from pathlib import Path
from types import SimpleNamespace

import mini_recipe
import numpy
import pytest
import torch
from mini_recipe import run_here
from safetensors.torch import load_file

from espnet_prune.errors import ConfigError
from espnet_prune.job_control import TASK
from espnet_prune.methods.options import QuantNoiseConfig
from espnet_prune.models.espnet import choices  # noqa: F401  (stubs before ESPnet)
from espnet_prune.train import within_epoch
from espnet_prune.train.quant_noise import QuantNoise
from espnet_prune.train.within_epoch import (
    VARIABLE,
    Trained,
    WithinEpoch,
    random_state,
    save_seconds,
    set_random_state,
)

pytestmark = pytest.mark.timeout(600)
EACH_ONCE = [(epoch, update) for epoch in (1, 2, 3) for update in (1, 2, 3, 4)]


class Killed(BaseException):
    """Stands for a kill -9: nothing of the package handles it."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, repository) -> Path:
    """All stages without a break."""
    folder = tmp_path_factory.mktemp("within")
    mini_recipe.write_recipe(folder, repository)
    for name in ("teacher", "prune", "finetune"):
        path = folder / f"conf/{name}.yaml"
        path.write_text(f"{path.read_text()}num_workers: 0\n")
    for main in ("collect_stats", "train_teacher", "prune", "cut", "finetune"):
        run_here(folder, main)
    return folder


@pytest.fixture
def kill_after(monkeypatch):
    """Ends a training right after its n-th save; every update but an epoch's last is saved."""

    def call(saves: int) -> None:
        monkeypatch.setenv(VARIABLE, "0")
        stock, done = WithinEpoch.save, []

        def save(self, batches):
            stock(self, batches)
            done.append(batches)
            if len(done) == saves:
                raise Killed

        monkeypatch.setattr(WithinEpoch, "save", save)

    yield call


@pytest.mark.parametrize(
    ("main", "training", "made", "weights"),
    [
        ("train_teacher", "teacher/train", ["teacher"], "teacher/model/model.safetensors"),
        ("prune", "l0/prune", ["l0"], None),
        ("finetune", "l0/finetune", ["l0/finetune", "l0/model"], "l0/model/model.safetensors"),
    ],
)
def test_killed_between_two_updates_it_goes_on_bit_equal(
    unbroken, tmp_path, kill_after, caplog, main, training, made, weights
):
    made = [f"exp/{name}" for name in made]
    folder = mini_recipe.copy_without(unbroken, tmp_path / "killed", made)
    output = folder / "exp" / training
    kill_after(5)  # three saves in the first epoch
    with pytest.raises(Killed):
        run_here(folder, main)
    assert (output / "1epoch.pth").exists() and not (output / "2epoch.pth").exists()
    with caplog.at_level("INFO"):
        run_here(folder, main)
    assert "epoch 2 goes on after batch 2" in caplog.text
    assert not (output / "within_epoch.pth").exists()
    ours, theirs = (
        torch.load(f / "exp" / training / "latest.pth", weights_only=True)
        for f in (folder, unbroken)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    if weights:
        ours, theirs = (load_file(f / "exp" / weights) for f in (folder, unbroken))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    rows = [
        list(csv.DictReader((f / "exp" / training / "progress.csv").open(newline="")))
        for f in (folder, unbroken)
    ]
    assert rows[0] == rows[1]
    assert [(int(row["epoch"]), int(row["update"])) for row in rows[0]] == EACH_ONCE


def test_what_another_configuration_saved_is_not_taken(unbroken, tmp_path, kill_after):
    folder = mini_recipe.copy_without(unbroken, tmp_path / "killed", ["exp/teacher"])
    kill_after(1)
    with pytest.raises(Killed):
        run_here(folder, "train_teacher")
    path = folder / "conf/teacher.yaml"
    path.write_text(path.read_text().replace("max_epoch: 3", "max_epoch: 4"))
    with pytest.raises(ConfigError, match="max_epoch: 3 -> 4"):
        run_here(folder, "train_teacher")


def test_generators_go_on_where_they_were():
    def draw():
        return random.random(), numpy.random.rand(), float(torch.rand(()))

    numpy.random.randn()  # leaves a second number for the next time
    state = random_state()
    expected = draw(), numpy.random.randn()
    draw()
    set_random_state(state)
    assert (draw(), numpy.random.randn()) == expected


@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_a_wrong_pause_is_named(monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigError, match=f"ESPNET_PRUNE_SAVE_SECONDS={value}"):
        save_seconds()


@pytest.fixture
def saves(tmp_path, monkeypatch):
    """Runs an epoch of seven batches, two an update; after which of them it saved."""

    def call(pause: str) -> list[int]:
        saved = []
        monkeypatch.setenv(VARIABLE, pause)
        monkeypatch.setattr(WithinEpoch, "save", lambda self, batches: saved.append(batches))
        model = torch.nn.Linear(1, 1)
        trained = Trained(model, [torch.optim.SGD(model.parameters(), lr=0.1)], [None])
        reporter = SimpleNamespace(epoch=1, stats={})
        recorder = SimpleNamespace(rows=[], batches=0)
        epoch = WithinEpoch(tmp_path, trained, reporter, recorder, 2)
        assert epoch.resume() == 0
        assert list(epoch.batches(range(7))) == list(range(7))
        return saved

    return call


def test_whole_updates_are_saved_and_one_is_left_for_the_rest(saves):
    """As batches of an update are summed into gradients that nobody saves."""
    assert saves("0") == [2, 4]


def test_weights_whose_update_was_skipped_are_saved_as_they_were(tmp_path, monkeypatch):
    """As after a gradient that isn't finite: no step puts disturbed weights back."""
    monkeypatch.setenv(VARIABLE, "0")
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.tensor([[0.31, 1.0]]))
    model.disturbed = QuantNoise([model.weight], QuantNoiseConfig(bits=4, share=1.0))
    reporter = SimpleNamespace(epoch=1, stats={})
    recorder = SimpleNamespace(rows=[], batches=0)
    epoch = WithinEpoch(tmp_path, Trained(model, [], []), reporter, recorder, 1)
    for _ in epoch.batches(range(2)):
        model.disturbed(lambda: (model.weight.sum(),))
    state = torch.load(tmp_path / "within_epoch.pth", weights_only=True)
    assert (state["batches"], state["model"]["weight"].tolist()) == (1, [[pytest.approx(0.31), 1]])
    assert int(state["model"]["disturbed.updates"]) == 1, "the next update draws anew"


def test_a_job_asked_to_stop_saves_once_at_once(saves, tmp_path, monkeypatch):
    monkeypatch.setattr(within_epoch, "LOOK_SECONDS", 0.0)
    monkeypatch.setenv(TASK, str(tmp_path / "0"))
    assert saves("1000") == []
    (tmp_path / "0.stop").touch()
    assert saves("1000") == [2]
