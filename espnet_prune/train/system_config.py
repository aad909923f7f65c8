"""All that the stages of one system read, resolved once: ``exp/TAG/SYSTEM/config.yaml``."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from espnet_prune.budget import Rung, even_rungs
from espnet_prune.config import dump_yaml, load_yaml, to_dataclass
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.io_atomic import write_text
from espnet_prune.methods import Method, MethodConfig, make_method, method_config

CONFIG = "config.yaml"
STAGES = ("prune", "finetune")


@dataclass(frozen=True)
class Folders:
    """What trainings read, relative to the folder that holds ``exp``."""

    train: Path
    valid: Path
    tokens: Path
    stats: Path


@dataclass(frozen=True)
class StageConfig:
    """One of a system's trainings.

    Attributes:
        training: ESPnet's options, checked.
        method: those of the system's method.
    """

    training: dict[str, object]
    method: MethodConfig

    @property
    def updates_an_epoch(self) -> int:
        """Updates that an epoch makes, which schedules and budgets are counted by.

        Batches short of an ``accum_grad`` at its end make none.
        """
        batches = self.training["num_iters_per_epoch"]
        return max(1, batches // (self.training.get("accum_grad") or 1))

    @property
    def updates(self) -> int:
        """Number of updates of the whole training."""
        return self.updates_an_epoch * self.training["max_epoch"]


@dataclass(frozen=True)
class SystemConfig:
    """One system.

    Attributes:
        method: a name in ``espnet_prune.methods.METHODS``.
        target: wanted sparsity.
        seed: seed of the gates' noise, the batches and everything else random.
        teacher: folder of the uncompressed system.
        folders: the data.
        prune: configuration of stage 8; None where the recipe has no prune.yaml.
        finetune: configuration of stage 10; likewise.
        ladder: smaller targets that the run of stage 8 passes, by rising sparsity; the state of
            each is kept, and other systems can be made of it.
        taken_from: the system whose ladder has this one's target; nothing is learned for this one.
        origin: folder of the finished system that is pruned in the teacher's place, if one is.
        as_cut: whether the cut model is final, with no finetuning.
        bits: 4 or 8 bits a weight in the finished model; None leaves them as they are.
        own: the options and training keys that its row of systems.yaml has, which tell it from
            others in a report.
        made_from: a short hash of what all this was resolved from.
    """

    method: str
    target: float
    seed: int
    teacher: Path
    folders: Folders
    prune: StageConfig | None = None
    finetune: StageConfig | None = None
    ladder: tuple[float, ...] | None = None
    taken_from: str | None = None
    origin: Path | None = None
    as_cut: bool = False
    bits: int | None = None
    own: dict[str, object] = field(default_factory=dict)
    made_from: str = ""

    @property
    def pruned(self) -> Path:
        """The model that is pruned."""
        return (self.origin or self.teacher) / "model"

    def stage(self, name: str) -> StageConfig:
        """``prune`` or ``finetune``.

        Raises:
            ConfigError: the recipe has none.
        """
        found = getattr(self, name)
        if found is None:
            raise ConfigError(
                f"{name}.yaml: the recipe has none; add it, and give the same command again"
            )
        return found

    def build_method(self, stage: str = "prune") -> Method:
        """The method itself; for pruning with the length of its run and the ladder's rungs."""
        options = self.stage(stage).method
        if stage != "prune":
            return self._method(options)
        updates = self.pruning_updates()
        rungs: Sequence[Rung] = ()
        if self.ladder is not None and self.taken_from is None:
            targets = (*self.ladder, self.target)
            rungs = even_rungs(targets, updates, self.prune.updates_an_epoch)[:-1]
        return self._method(options, updates=updates, **({"ladder": rungs} if rungs else {}))

    def pruning_updates(self) -> int:
        """Number of updates of stage 8, with those that it takes over from finetuning."""
        return self.prune.updates + self.taken_epochs() * self.prune.updates_an_epoch

    def taken_epochs(self) -> int:
        """Epochs that stage 8 takes over from finetuning."""
        if self.taken_from is not None:
            return 0
        return self._method(self.stage("prune").method).epochs_from_finetuning

    def _method(self, options: MethodConfig, **more) -> Method:
        return make_method(self.method, target=self.target, seed=self.seed, config=options, **more)

    def score_files(self) -> list[Path]:
        """The files of measured scores that masks are chosen by."""
        options = self.stage("prune").method
        found = (getattr(options, name, None) for name in ("importance", "module_error"))
        return [Path(scores.file) for scores in found if scores is not None]

    def about(self, stage: str) -> dict:
        """What the result of a stage depends on, of all this."""
        keys = ("method", "target", "seed", "ladder", "taken_from", "as_cut")
        about = {**{key: getattr(self, key) for key in keys}, stage: self.stage(stage)}
        if stage == "finetune" and self.bits:
            about["bits"] = self.bits
        return plain(about)


def plain(value: object) -> object:
    """Dataclasses and tuples as YAML and JSON have them, paths as texts."""
    if hasattr(value, "__dataclass_fields__"):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def write_config(system: Path, config: SystemConfig) -> None:
    """Writes it into the system's folder."""
    write_text(system / CONFIG, dump_yaml(plain(config)))


def read_config(system: Path) -> SystemConfig:
    """Reads it.

    Raises:
        DataError: there is none.
        ConfigError: a key or value that isn't known, as of another version of this program.
    """
    path = system / CONFIG
    if not path.exists():
        raise DataError(
            f"{path}: no such file; the recipe's driver, or espnet-prune configure, makes it"
        )
    values, where = load_yaml(path), str(path)
    for name in STAGES:
        stage = values.get(name)
        if stage is not None:
            options = method_config(values.get("method"), stage["method"], f"{where}: {name}")
            values[name] = StageConfig(stage["training"], options)
    return to_dataclass(SystemConfig, values, where)


def finetuning_epochs(stage: StageConfig, saved_updates: int) -> int:
    """Epochs of finetuning; ``saved_updates`` is below 0 where the pruning stage took some over."""
    more, rest = divmod(saved_updates, stage.updates_an_epoch)
    if rest:
        raise ConfigError(
            f"finetune.yaml: num_iters_per_epoch {stage.updates_an_epoch} doesn't divide the "
            f"{abs(saved_updates)} updates that the pruning stage left or took over; use the same "
            "in both files"
        )
    epochs = stage.updates // stage.updates_an_epoch
    if epochs + more < 0:
        raise ConfigError(
            f"finetune.yaml: max_epoch {epochs} is less than the {-more} epochs that the pruning "
            "stage took over (pinching: epochs_from_finetuning); raise it to that"
        )
    return epochs + more


def continued_schedule(stage: StageConfig, updates: int) -> dict:
    """The options of finetuning's learning rates, which go on after ``updates`` of pruning.

    Raises:
        ConfigError: the configured schedule can't begin later, or isn't counted by updates.
    """
    name = stage.training.get("scheduler")
    if name is None or not updates:  # a constant rate goes on by itself
        return {}
    from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler
    from espnet2.tasks.abs_task import scheduler_classes

    schedule = scheduler_classes[name]
    by_updates = issubclass(schedule, AbsBatchStepScheduler)
    if not by_updates or "last_epoch" not in inspect.signature(schedule).parameters:
        raise ConfigError(
            f"finetune.yaml: method: continue_schedule: the scheduler '{name}' can't begin "
            "after some updates; choose warmuplr, or leave continue_schedule out"
        )
    own = stage.training.get("scheduler_conf") or {}
    return {"scheduler_conf": {**own, "last_epoch": updates - 1}}
