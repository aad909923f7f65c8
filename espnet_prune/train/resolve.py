"""One system's configuration out of a recipe's: typed, and checked by what ESPnet knows."""

from collections.abc import Mapping
from pathlib import Path

from espnet_prune.config import check_mapping, merge
from espnet_prune.errors import ConfigError
from espnet_prune.methods import check_shared, method_config, options_of
from espnet_prune.train.options import check_training_config, check_unset
from espnet_prune.train.prune_task import FinetuneTask, PruneTask
from espnet_prune.train.recipe import FINETUNE, METHOD, PRUNE, SYSTEMS, Recipe
from espnet_prune.train.system_config import Folders, StageConfig, SystemConfig
from espnet_prune.train.systems import SystemRow, read_row

TEACHER = "teacher"

TASKS = {PRUNE: PruneTask, FINETUNE: FinetuneTask}
UPDATE_KEYS = {"num_iters_per_epoch", "max_epoch", "accum_grad"}
COUNTS = {"num_iters_per_epoch": 1, "accum_grad": 1, "max_epoch": 0}  # the least of each
MODEL = ("frontend", "specaug", "normalize", "preencoder", "encoder", "postencoder", "decoder")
MODEL_KEYS = (*MODEL, "model", "ctc", "joint_net", "adapter")
NOT_THESE_STAGES = {
    "seed": "each system has its own",
    "patience": "every system gets the same number of updates",
    "grad_clip": f"{METHOD}: clip: has a norm for weights, gates and multipliers each",
    "grad_clip_type": f"{METHOD}: clip: has norms alone",
    "exclude_weight_decay": "gates don't decay, all weights do as optim_conf says",
    "exclude_weight_decay_conf": "gates don't decay, all weights do as optim_conf says",
    **dict.fromkeys(
        (*MODEL_KEYS, *(f"{key}_conf" for key in MODEL_KEYS), "init", "input_size", "use_adapter"),
        "the model is the teacher's, with what its own configuration says",
    ),
}
OF_GATES = {
    "lr": f"{METHOD}: gate_learning_rate, controller and pinching have the rates of gates",
    "weight_decay": "neither gates nor multipliers decay",
    "maximize": "multipliers alone ascend",
}


def resolve(
    recipe: Recipe, experiment: Path, folders: Mapping[str, str], name: str, made_from: str = ""
) -> SystemConfig:
    """A system's configuration.

    Args:
        recipe: the recipe.
        experiment: ``exp/TAG``.
        folders: folders of the data, by the names of ``Folders``.
        name: name of the system.
        made_from: what all this is called.

    Raises:
        ConfigError: a key or value that isn't known, or that the method refuses; masks that would
            be learned in no epoch.
    """
    row = read_row(recipe.systems, name, recipe.where[SYSTEMS])
    config = SystemConfig(
        method=row.method,
        target=row.target,
        seed=row.seed,
        teacher=experiment / TEACHER,
        folders=Folders(**{key: Path(value) for key, value in folders.items()}),
        prune=stage_config(recipe, PRUNE, row),
        finetune=stage_config(recipe, FINETUNE, row),
        ladder=row.ladder,
        taken_from=row.taken_from,
        origin=experiment / row.of if row.of else None,
        as_cut=row.as_cut,
        bits=row.bits,
        own={key: getattr(row, key) for key in ("options", "training", "of", "as_cut", "bits")},
        made_from=made_from,
    )
    if config.prune is not None:
        try:
            method = config.build_method()
        except ConfigError as error:
            raise ConfigError(f"{recipe.where[SYSTEMS]}: {name}: {error}") from error
        if method.learns_masks and row.taken_from is None and not method.updates:
            raise ConfigError(
                f"{recipe.where[PRUNE]}: max_epoch: 0: {row.method} learns its masks, which takes "
                "at least one epoch"
            )
    return config


def stage_config(recipe: Recipe, name: str, row: SystemRow) -> StageConfig | None:
    """One training of a system.

    Args:
        recipe: the recipe.
        name: ``prune`` or ``finetune``.
        row: the system's own keys, which win.

    Returns:
        The options; None where the recipe lacks the file.

    Raises:
        ConfigError: an unknown key, a wrong value, or a key that would change the number of
            updates, which is the same for all systems.
    """
    if name not in recipe.values:
        return None
    where, training = recipe.where[name], dict(recipe.values[name])
    shared = training.pop(METHOD, None) or {}  # None where all its keys are commented out
    check_mapping(f"{where}: {METHOD}", shared)
    check_shared(shared, f"{where}: {METHOD}")
    options = merge(options_of(row.method, shared), row.options)
    training = _check_training(training, TASKS[name], where)
    own = _own(row.training, name, where)
    if own:
        where = f"{where} with the system's training keys"
        training = check_training_config(TASKS[name], merge(training, own), where)
    return StageConfig(training, method_config(row.method, options, f"{where}: {METHOD}"))


def _check_training(config: Mapping, task: type, where: str) -> dict:
    check_unset(config.keys(), NOT_THESE_STAGES, where)
    _check_gates_optimizer(config, where)
    for key, least in COUNTS.items():
        value = config.get(key, least)
        if type(value) is not int or value < least:
            raise ConfigError(
                f"{where}: {key}: {value!r}; expected a whole number of at least {least}"
            )
    for key in ("num_iters_per_epoch", "max_epoch"):
        if key not in config:
            raise ConfigError(
                f"{where}: {key} is missing; schedules and the equal budget of updates are counted "
                "by it"
            )
    return check_training_config(task, config, where)


def _own(training: Mapping, name: str, where: str) -> dict:
    """A system's own training keys, but for those of stage 8 alone in stage 10."""
    for key in UPDATE_KEYS & set(training):
        raise ConfigError(
            f"training: {key}: every system gets the same number of updates; set it in "
            f"{where} for all of them"
        )
    check_unset(training.keys(), NOT_THESE_STAGES, "training")
    _check_gates_optimizer(training, "training")
    read, of_pruning = _options(TASKS[name]), _options(PruneTask)
    return {key: v for key, v in training.items() if key in read or key not in of_pruning}


def _check_gates_optimizer(config: Mapping, where: str) -> None:
    """ConfigError for options of ``optim2`` that each of its groups sets for itself."""
    own = config.get("optim2_conf")
    if isinstance(own, Mapping):
        check_unset(own.keys(), OF_GATES, f"{where}: optim2_conf")


def _options(task: type) -> set[str]:
    return {action.dest for action in task.get_parser()._actions}
