"""A system's own training keys."""

from pathlib import Path

import pytest

from espnet_prune.errors import ConfigError, DataError
from espnet_prune.espnet.prune_task import FinetuneTask, SystemConfig
from espnet_prune.espnet.recipe import finetuning_epochs, for_system, read_recipe
from espnet_prune.espnet.system import best_average


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
