"""What stages 8 and 10 read: prune.yaml or finetune.yaml, and one system's own keys in it."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from espnet_prune.config import check_mapping, load_yaml, merge, to_dataclass
from espnet_prune.errors import ConfigError
from espnet_prune.methods import MethodConfig
from espnet_prune.train.options import check_training_config, check_unset
from espnet_prune.train.prune_task import PruneTask, SystemConfig

from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler  # isort: skip  (after its stubs)
from espnet2.tasks.abs_task import scheduler_classes  # isort: skip

METHOD_KEY = "method"
UPDATE_KEYS = {"num_iters_per_epoch", "max_epoch", "accum_grad"}
COUNTS = {"num_iters_per_epoch": 1, "accum_grad": 1, "max_epoch": 0}  # the least of each
MODEL = ("frontend", "specaug", "normalize", "preencoder", "encoder", "postencoder", "decoder")
MODEL_KEYS = (*MODEL, "model", "ctc", "joint_net", "adapter")
NOT_THESE_STAGES = {
    "seed": "each system has its own",
    "patience": "every system gets the same number of updates",
    "grad_clip": f"{METHOD_KEY}: clip: has a norm for weights, gates and multipliers each",
    "grad_clip_type": f"{METHOD_KEY}: clip: has norms alone",
    "exclude_weight_decay": "gates don't decay, all weights do as optim_conf says",
    "exclude_weight_decay_conf": "gates don't decay, all weights do as optim_conf says",
    **dict.fromkeys(
        (*MODEL_KEYS, *(f"{key}_conf" for key in MODEL_KEYS), "init", "input_size", "use_adapter"),
        "the model is the teacher's, with what its own configuration says",
    ),
}

OF_GATES = {
    "lr": f"{METHOD_KEY}: gate_learning_rate, controller and pinching have the rates of gates",
    "weight_decay": "neither gates nor multipliers decay",
    "maximize": "multipliers alone ascend",
}


@dataclass(frozen=True)
class Recipe:
    """A training configuration with the method's options beside it.

    Attributes:
        path: the file.
        training: ESPnet's part, checked.
        method: the method's part.
    """

    path: Path
    training: dict
    method: dict

    @property
    def updates_an_epoch(self) -> int:
        """Updates that an epoch makes, which schedules and budgets are counted by.

        Batches short of an ``accum_grad`` at its end make none.
        """
        value = self.training.get("num_iters_per_epoch")
        if not value:
            raise ConfigError(
                f"{self.path}: num_iters_per_epoch is missing; schedules and the equal budget of "
                "updates are counted by it"
            )
        return max(1, value // (self.training.get("accum_grad") or 1))

    @property
    def updates(self) -> int:
        """Number of updates of the whole training."""
        if "max_epoch" not in self.training:
            raise ConfigError(f"{self.path}: max_epoch is missing")
        return self.updates_an_epoch * self.training["max_epoch"]


def read_recipe(path: Path, task: type) -> Recipe:
    """Reads prune.yaml or finetune.yaml.

    Raises:
        ConfigError: an unknown key, a wrong type.
    """
    config = load_yaml(path)
    method = config.pop(METHOD_KEY, None) or {}  # None where all its keys are commented out
    check_mapping(f"{path}: {METHOD_KEY}", method)
    check_unset(config.keys(), NOT_THESE_STAGES, str(path))
    _check_gates_optimizer(config, str(path))
    for key, least in COUNTS.items():
        value = config.get(key, least)
        if type(value) is not int or value < least:
            raise ConfigError(
                f"{path}: {key}: {value!r}; expected a whole number of at least {least}"
            )
    return Recipe(path, check_training_config(task, config, str(path)), method)


def for_system(recipe: Recipe, system: SystemConfig, task: type) -> Recipe:
    """The recipe with the system's own training keys in it, but for those of stage 8 alone.

    Raises:
        ConfigError: an unknown key, a wrong type, or a key that would change the number of
            updates, which is the same for all systems.
    """
    where = f"{recipe.path} with the system's training keys"
    read, of_pruning = _options(task), _options(PruneTask)
    for key in UPDATE_KEYS & set(system.training):
        raise ConfigError(
            f"training: {key}: every system gets the same number of updates; set it in "
            f"{recipe.path} for all of them"
        )
    check_unset(system.training.keys(), NOT_THESE_STAGES, "training")
    _check_gates_optimizer(system.training, "training")
    own = {key: v for key, v in system.training.items() if key in read or key not in of_pruning}
    training = check_training_config(task, merge(recipe.training, own), where)
    return replace(recipe, training=training)


def _check_gates_optimizer(config: Mapping, where: str) -> None:
    """ConfigError for options of ``optim2`` that each of its groups sets for itself."""
    own = config.get("optim2_conf")
    if isinstance(own, Mapping):
        check_unset(own.keys(), OF_GATES, f"{where}: optim2_conf")


def _options(task: type) -> set[str]:
    return {action.dest for action in task.get_parser()._actions}


def method_config(recipe: Recipe, system: SystemConfig) -> MethodConfig:
    """The method's options: the recipe's, overridden by the system's own."""
    options = merge(recipe.method, system.options)
    return to_dataclass(MethodConfig, options, f"{recipe.path}: {METHOD_KEY}")


def finetuning_epochs(recipe: Recipe, saved_updates: int) -> int:
    """Epochs of finetuning; ``saved_updates`` is below 0 where the pruning stage took some over."""
    more, rest = divmod(saved_updates, recipe.updates_an_epoch)
    if rest:
        raise ConfigError(
            f"{recipe.path}: num_iters_per_epoch {recipe.updates_an_epoch} doesn't divide the "
            f"{abs(saved_updates)} updates that the pruning stage left or took over; use the same "
            "in both files"
        )
    epochs = recipe.updates // recipe.updates_an_epoch
    if epochs + more < 0:
        raise ConfigError(
            f"{recipe.path}: max_epoch {epochs} is less than the {-more} epochs that the pruning "
            "stage took over (pinching: epochs_from_finetuning); raise it to that"
        )
    return epochs + more


def continued_schedule(recipe: Recipe, updates: int) -> dict:
    """The options of finetuning's learning rates, which go on after ``updates`` of pruning.

    Raises:
        ConfigError: the configured schedule can't begin later, or isn't counted by updates.
    """
    name = recipe.training.get("scheduler")
    if name is None or not updates:  # a constant rate goes on by itself
        return {}
    schedule = scheduler_classes[name]
    by_updates = issubclass(schedule, AbsBatchStepScheduler)
    if not by_updates or "last_epoch" not in inspect.signature(schedule).parameters:
        raise ConfigError(
            f"{recipe.path}: {METHOD_KEY}: continue_schedule: the scheduler '{name}' can't begin "
            "after some updates; choose warmuplr, or leave continue_schedule out"
        )
    own = recipe.training.get("scheduler_conf") or {}
    return {"scheduler_conf": {**own, "last_epoch": updates - 1}}
