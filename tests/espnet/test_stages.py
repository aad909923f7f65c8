"""A system's own training keys."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from espnet_prune.errors import ConfigError, DataError
from espnet_prune.espnet.prune_task import FinetuneTask, SystemConfig
from espnet_prune.espnet.recipe import (
    continued_schedule,
    finetuning_epochs,
    for_system,
    read_recipe,
)
from espnet_prune.espnet.system import best_average

from espnet2.schedulers.warmup_lr import WarmupLR  # isort: skip  (after the registry's stubs)


@pytest.fixture
def recipe(tmp_path: Path):
    path = tmp_path / "finetune.yaml"
    path.write_text(
        "optim: adam\noptim_conf: {lr: 0.001, weight_decay: 0.1}\n"
        "num_iters_per_epoch: 3\nmax_epoch: 2\n"
    )
    return read_recipe(path, FinetuneTask)


def adapted(recipe, **training: object):
    return for_system(recipe, SystemConfig("magnitude", training=training), FinetuneTask)


def test_a_system_overrides_single_training_keys(recipe):
    training = adapted(recipe, optim_conf={"lr": 0.01}).training
    assert training["optim_conf"] == {"lr": 0.01, "weight_decay": 0.1}
    assert recipe.training["optim_conf"]["lr"] == 0.001


def test_without_keys_nothing_changes(recipe):
    assert adapted(recipe) == recipe


@pytest.mark.parametrize("key", ["max_epoch", "num_iters_per_epoch", "accum_grad"])
def test_the_number_of_updates_is_the_same_for_all(recipe, key):
    with pytest.raises(ConfigError, match=f"training: {key}.*finetune.yaml"):
        adapted(recipe, **{key: 5})


def test_an_unknown_key_is_named_with_its_nearest(recipe):
    with pytest.raises(ConfigError, match="'optim_con'.*optim_conf"):
        adapted(recipe, optim_con={"lr": 0.01})


def test_the_average_of_the_last_run_counts(tmp_path):
    for name in ("valid.acc.ave_4best.pth", "valid.acc.ave_10best.pth"):
        (tmp_path / name).write_text(name)
    (tmp_path / "valid.acc.ave.pth").symlink_to("valid.acc.ave_10best.pth")
    config = {"best_model_criterion": [["valid", "acc", "max"]]}
    assert best_average(tmp_path, config).name == "valid.acc.ave_10best.pth"


def test_an_unfinished_training_has_no_average(tmp_path):
    (tmp_path / "valid.acc.ave.pth").symlink_to("valid.acc.ave_1best.pth")
    with pytest.raises(DataError, match=r"valid\.acc\.ave\.pth.*the same command again"):
        best_average(tmp_path, {})


@pytest.mark.parametrize("saved, epochs", [(0, 2), (6, 4), (-3, 1), (-6, 0)])
def test_finetuning_gives_and_takes_epochs(recipe, saved, epochs):
    assert finetuning_epochs(recipe, saved) == epochs


@pytest.mark.parametrize(
    "saved, message", [(-9, "max_epoch 2 is less than the 3 epochs"), (4, "doesn't divide the 4")]
)
def test_epochs_that_finetuning_does_not_have_are_named(recipe, saved, message):
    with pytest.raises(ConfigError, match=f"finetune.yaml: .*{message}"):
        finetuning_epochs(recipe, saved)


def rates(options: dict, updates: int) -> list[float]:
    """Learning rates of the first updates by ESPnet's own schedule."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = FinetuneTask.weights_optimizer(
        Namespace(optim="adam", optim_conf={"lr": 0.001}), [weight], clip=1.0
    )
    scheduler, found = WarmupLR(optimizer, **options), []
    for _ in range(updates):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_a_continued_schedule_has_the_rates_of_one_training(recipe):
    warm = adapted(recipe, scheduler="warmuplr", scheduler_conf={"warmup_steps": 4})
    whole = rates(warm.training["scheduler_conf"], 9)
    later = rates(continued_schedule(warm, 6)["scheduler_conf"], 3)
    assert later == pytest.approx(whole[6:])
    assert later[0] < max(whole) and continued_schedule(warm, 0) == {}


def test_a_constant_rate_goes_on_by_itself(recipe):
    assert continued_schedule(recipe, 6) == {}


def test_a_schedule_that_cannot_begin_later_is_named(recipe):
    stepped = adapted(recipe, scheduler="steplr", scheduler_conf={"step_size": 1})
    with pytest.raises(ConfigError, match="finetune.yaml.*continue_schedule.*'steplr'.*warmuplr"):
        continued_schedule(stepped, 6)
