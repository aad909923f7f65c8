"""The folder of one system: its model in both formats, and the record of how it was made.

``exp/<tag>/<system>/`` holds ``model/`` (ours, with ``espnet/`` for stock ESPnet inside),
``system.json`` and, for a cut model, ``plan.json``.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from espnet_prune.errors import DataError
from espnet_prune.io_atomic import read_json, write_json
from espnet_prune.models.espnet.build import load_trained
from espnet_prune.models.espnet.folder import write_model
from espnet_prune.models.graph_names import TRAINED_SECONDS
from espnet_prune.record import add_command, update_record
from espnet_prune.sites import count_parameters
from espnet_prune.surgery import plan_of

PLAN = "plan.json"


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    """What parameters are counted of: encoder, decoder where there is one, and the total.

    A transducer's decoder is its prediction and its joint network.
    """
    parts = {name: getattr(model, name) for name in ("encoder", "decoder")}
    if getattr(model, "joint_network", None) is not None:
        parts["decoder"] = nn.ModuleList([model.decoder, model.joint_network])
    return {name: part for name, part in {**parts, "total": model}.items() if part is not None}


def seconds_of(training: Path) -> float:
    """Seconds that a training took over all its starts; 0 for one that needed none."""
    path = training / "train_seconds.json"
    return read_json(path)["seconds"] if path.exists() else 0.0


def updates_of(training: Path) -> int:
    """Updates that a training made, by its record."""
    path = training / "progress.csv"
    if not path.exists():
        return 0
    return sum(1 for _ in path.open()) - 1


def write_cut(system: Path, model: nn.Module, folder: str) -> None:
    """Writes a cut model and, unless single weights were pruned, its plan.

    Args:
        system: the system's folder.
        model: the cut model.
        folder: ``cut`` before finetuning, ``model`` after it.
    """
    write_model(model, system / folder)
    plan = plan_of(model)
    if plan is not None:
        write_json(system / PLAN, plan.to_json())


def finish_teacher(
    system: Path,
    config: Mapping,
    untrained: nn.Module | None = None,
    trained_seconds: float | None = None,
) -> None:
    """Writes model and record of a teacher.

    Args:
        system: the teacher's folder, trained in ``train``.
        config: its training configuration.
        untrained: the model, where it is taken as it was pretrained.
        trained_seconds: length of the longest utterance that it was trained on.
    """
    training, weights = system / "train", "as pretrained"
    model = untrained
    if model is None:
        average = best_average(training, config)
        model, weights = load_trained(training / "config.yaml", average), average.name
    if trained_seconds is not None:
        model.espnet_prune_config[TRAINED_SECONDS] = trained_seconds
    write_model(model, system / "model")
    sizes = {name: count_parameters(part) for name, part in parts_of(model).items()}
    update_record(
        system,
        method="teacher",
        seed=int(config.get("seed", 0)),
        target=0.0,
        sparsity=None,
        params={
            "prunable": None,
            **{name: {"kept": size, "dense": size} for name, size in sizes.items()},
        },
        train_seconds={"train": seconds_of(training)},
        updates={"train": updates_of(training)},
        weights=weights,
    )
    add_command(system, config, int(config.get("seed", 0)))


def best_average(training: Path, config: Mapping) -> Path:
    """The weights that ESPnet averaged over the best epochs by the first criterion.

    Raises:
        DataError: the training didn't leave them.
    """
    by_default = [["valid", "acc" if config.get("decoder") else "loss", None]]
    phase, key, _ = (config.get("best_model_criterion") or by_default)[0]
    latest = training / f"{phase}.{key}.ave.pth"  # leads to ave_Nbest.pth, of the last run's N
    if not latest.exists():
        raise DataError(
            f"{latest}: no such file; the training isn't finished, give the same command again"
        )
    return training / latest.readlink() if latest.is_symlink() else latest
