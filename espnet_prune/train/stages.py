"""Stages 8 to 10 of one system: prune, cut, finetune."""

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from espnet_prune.budget import Budget, even_rungs
from espnet_prune.config import to_dataclass
from espnet_prune.errors import ConfigError, ModelError, TargetMissedError
from espnet_prune.io_torch import read_torch
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.models.espnet.features import random_outputs
from espnet_prune.models.espnet.format import espnet_config
from espnet_prune.sites import DECODER, count_parameters
from espnet_prune.surgery import GatedModel, cut, inject, load, load_strictly
from espnet_prune.surgery.families import family_of
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.serialize import WEIGHTS
from espnet_prune.surgery.sparse import count_zeroed
from espnet_prune.train.calibration import ORDER, choose_masks, read_masks, write_order
from espnet_prune.train.distributed import is_first
from espnet_prune.train.keep_outputs import keep_outputs
from espnet_prune.train.prune_task import FinetuneTask, PruneConf, PruneTask, SystemConfig
from espnet_prune.train.recipe import (
    Recipe,
    continued_schedule,
    finetuning_epochs,
    method_config,
)
from espnet_prune.train.rungs import take_rung
from espnet_prune.train.system import (
    add_command,
    best_average,
    parts_of,
    read_record,
    seconds_of,
    update_record,
    updates_of,
    write_cut,
)
from espnet_prune.train.training import run_training

logger = logging.getLogger(__name__)
CHECK_SECONDS = 2.0
DEAF = (
    "%s: no channel of the front-end is left, so the model hears nothing and finetuning can't mend "
    "it; leave the front-end whole (options: {sites: [head, feed_forward_unit, "
    "convolution_channel]}), or choose a method that doesn't rank kinds of units together"
)
CUT_TOLERANCE = 1e-4  # of outputs of the order of 1: float32 sums in another order


@dataclass(frozen=True)
class Folders:
    """What the training stages read: two dump folders, tokens and statistics."""

    train: Path
    valid: Path
    tokens: Path
    stats: Path


def prune(
    recipe: Recipe, system: SystemConfig, teacher: Path, folders: Folders, out: Path, ngpu: int
) -> None:
    """Stage 8: learns masks, takes a rung, chooses masks on data, or leaves that to the cut.

    Args:
        recipe: prune.yaml.
        system: method, target, seed.
        teacher: the teacher's folder.
        folders: the data.
        out: the system's folder.
        ngpu: 0 for the CPU.
    """
    conf = PruneConf(
        teacher=str((teacher / "model").resolve()),
        system=system,
        method=method_config(recipe, system),
        updates=recipe.updates,
    )
    if system.taken_from is not None:
        _take(conf, recipe, out)
        return
    taken = conf.build_method().epochs_from_finetuning * recipe.updates_an_epoch
    conf = replace(conf, updates=recipe.updates + taken)
    if system.ladder is not None:
        targets = (*system.ladder, system.target)
        rungs = even_rungs(targets, conf.updates, recipe.updates_an_epoch)
        conf = replace(conf, ladder_updates=tuple(rung.updates for rung in rungs[:-1]))
    method = conf.build_method()
    if method.learns_masks:
        if not conf.updates:
            raise ConfigError(
                f"{recipe.path}: max_epoch: 0: {system.method} learns its masks, which takes at "
                "least one epoch"
            )
        extra = {"seed": system.seed}
        extra["grad_clip"] = float("inf")  # each group is clipped apart, see clip_before_steps
        extra["max_epoch"] = conf.updates // recipe.updates_an_epoch
        extra.update(optim2=recipe.training.get("optim2", "adam"))
        conf = replace(conf, teacher_outputs=_kept(conf, recipe, folders, ngpu))
        if method.order_utterances:
            conf = replace(conf, order=str((out / "prune" / ORDER).resolve()))
            if is_first():
                write_order(
                    conf, recipe.training, folders.train, folders.tokens, out / "prune", ngpu
                )
        models = {"the teacher": Path(conf.teacher)}
        paths = (*_paths(folders), out / "prune")
        extra["prune_conf"] = _plain(asdict(conf))
        run_training(PruneTask, recipe.training, *paths, ngpu, extra, models)
    if not is_first():
        return
    if method.calibration_utterances:
        choose_masks(conf, recipe.training, folders.train, folders.tokens, out / "prune", ngpu)
    _record_pruning(out, conf, -taken if method.learns_masks else recipe.updates)


def _take(conf: PruneConf, recipe: Recipe, out: Path) -> None:
    """Stage 8 of a system that is a rung of another's ladder: that run's state, up to the rung."""
    if not is_first():
        return
    system = conf.system
    state = take_rung(out.parent / system.taken_from, system.target, out / "prune")
    _record_pruning(out, conf, recipe.updates - state.epoch * recipe.updates_an_epoch)
    update_record(
        out,
        shared={
            "system": system.taken_from,
            "seconds": seconds_of(out / "prune"),
            "updates": updates_of(out / "prune"),
        },
    )


def _record_pruning(out: Path, conf: PruneConf, saved_updates: int) -> None:
    """Which system it is, and what stage 8 cost; ``saved_updates`` are left for finetuning."""
    system = conf.system
    conf = replace(conf, order=None, teacher_outputs=())  # of no use after it, and may be moved
    update_record(
        out,
        method=system.method,
        seed=system.seed,
        target=system.target,
        prune_conf={
            **_plain(asdict(conf)),
            "teacher": os.path.relpath(conf.teacher, out.resolve()),
        },
        train_seconds={"prune": seconds_of(out / "prune")},
        updates={"prune": updates_of(out / "prune")},
        saved_updates=saved_updates,
    )
    add_command(out, _plain(asdict(conf)), system.seed)


def cut_system(out: Path) -> float:
    """Stage 9: fixes the masks at the target, cuts, checks, saves.

    Args:
        out: the system's folder.

    Returns:
        The largest difference between masked and cut model on random features.

    Raises:
        TargetMissedError: the hard sparsity is further from the target than the tolerance.
        ModelError: masked and cut model differ.
    """
    record = read_record(out)
    conf = to_dataclass(PruneConf, record["prune_conf"], str(out / "system.json"))
    conf = replace(conf, teacher=str((out.resolve() / conf.teacher).resolve()))
    method = conf.build_method()
    gated = _trained(conf, out) if method.learns_masks else inject(load(conf.teacher), method)
    expected = float(gated.expected_sparsity().detach())
    gated.eval()
    masks = read_masks(out / "prune") if method.calibration_utterances else method.masks(gated)
    masks = method.aligned(gated, masks)
    method.rewrite(gated, masks)
    kept = gated.budget.hard(masks)
    reached = float(gated.budget.sparsity(kept))
    _check_reached(out, conf, gated, reached)
    totals = {name: count_parameters(part) for name, part in parts_of(gated.model).items()}
    small = cut(gated, masks)
    difference = _difference(gated, masks, small)
    if family_of(small).hears_nothing(small):
        logger.warning(DEAF, out)
    if difference > CUT_TOLERANCE:
        raise ModelError(f"{out}: masked and cut model differ by {difference:.2g}; this is a bug")
    if method.from_scratch:
        small = _drawn_anew(small, conf.system.seed)
    write_cut(out, small, "cut")
    kept_sizes = {
        name: count_parameters(part) - count_zeroed(small, part)
        for name, part in parts_of(small).items()
    }
    removed = totals["total"] - kept_sizes["total"]
    prunable = _prunable_parameters(gated)
    update_record(
        out,
        sparsity={
            "measure": gated.budget.measure,
            "kept": kept,
            "total": gated.budget.prunable,
            "value": reached,
            "expected": expected if method.learns_masks else None,
        },
        params={
            "prunable": {"kept": prunable - removed, "dense": prunable},
            **{k: {"kept": kept_sizes[k], "dense": totals[k]} for k in totals},
        },
        weights_bytes={
            "kept": (out / "cut" / WEIGHTS).stat().st_size,
            "dense": (Path(conf.teacher) / WEIGHTS).stat().st_size,
        },
        masked_equals_cut={"max_difference": difference, "tolerance": CUT_TOLERANCE},
    )
    return difference


def _check_reached(out: Path, conf: PruneConf, gated: GatedModel, reached: float) -> None:
    gap = abs(reached - conf.system.target)
    if gap > conf.method.budget.tolerance:
        raise TargetMissedError(
            f"{out}: the cut would reach {reached:.2%} of {gated.budget.prunable} prunable "
            f"{gated.budget.measure}, {100 * gap:.2f} points from the target "
            f"{conf.system.target:.2%} (tolerance {conf.method.budget.tolerance:.2%}); train "
            "longer, raise gate_learning_rate, or gate finer sites"
        )


def finetune(
    recipe: Recipe, system: SystemConfig, teacher: Path, folders: Folders, out: Path, ngpu: int
) -> None:
    """Stage 10: trains the cut model on, distilled from the same teacher.

    A method that learned no masks gets the updates that the others spent on it; where the pruning
    stage took over all epochs of this one, the cut model is final.

    Args:
        recipe: finetune.yaml.
        system: method, target, seed.
        teacher: the teacher's folder.
        folders: the data.
        out: the system's folder.
        ngpu: 0 for the CPU.
    """
    record = read_record(out)
    conf = PruneConf(
        teacher=str((teacher / "model").resolve()),
        student=str((out / "cut").resolve()),
        system=system,
        method=method_config(recipe, system),
    )
    extra = {
        "seed": system.seed,
        "max_epoch": finetuning_epochs(recipe, record["saved_updates"]),
        "grad_clip": float("inf"),
    }
    if conf.method.continue_schedule:
        extra |= continued_schedule(recipe, updates_of(out / "prune"))
    training = out / "finetune"
    if extra["max_epoch"]:
        conf = replace(conf, teacher_outputs=_kept(conf, recipe, folders, ngpu))
        extra["prune_conf"] = _plain(asdict(conf))
        models = {"the teacher": Path(conf.teacher), "the cut model": Path(conf.student)}
        run_training(FinetuneTask, recipe.training, *_paths(folders), training, ngpu, extra, models)
    if not is_first():
        return
    small, weights = load(conf.student), "of the one pass"
    if extra["max_epoch"]:
        best = best_average(training, recipe.training)
        state, weights = read_torch(best), best.name
        own = {k.removeprefix("plain."): v for k, v in state.items() if k.startswith("plain.")}
        load_strictly(small, own, str(best))
    write_cut(out, small, "model")
    update_record(
        out,
        train_seconds={"finetune": seconds_of(training)},
        updates={"finetune": updates_of(training)},
        weights=weights,
    )
    add_command(out, _plain(asdict(conf)), system.seed)


def _kept(conf: PruneConf, recipe: Recipe, folders: Folders, ngpu: int) -> tuple[str, ...]:
    data = (folders.train, folders.valid)
    return keep_outputs(conf, recipe.training, data, folders.tokens, ngpu)


def _paths(folders: Folders) -> tuple[Path, Path, Path, Path]:
    return folders.train, folders.valid, folders.tokens, folders.stats


def _plain(value: object) -> object:
    """Tuples as lists, for YAML and JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _trained(conf: PruneConf, out: Path) -> GatedModel:
    """The gated model with the weights and gates that stage 8 left last."""
    last = out / "prune" / "latest.pth"
    if not last.exists():
        raise ModelError(f"{last}: no such file; run stage 8 (prune) to its end first")
    gated = inject(load(conf.teacher), conf.build_method())
    found = read_torch(last).items()
    own = {k.removeprefix("gated."): value for k, value in found if k.startswith("gated.")}
    load_strictly(gated, own, str(last))
    return gated


@torch.no_grad()
def _difference(gated: GatedModel, masks: Mapping, small: nn.Module) -> float:
    """Largest difference of the two models' outputs on random input."""
    decoder = any(name.startswith(DECODER) for name in gated.site_map.sites)
    with holding(gated, masks):
        masked = random_outputs(gated.eval().model, CHECK_SECONDS, decoder)
    return float((masked - random_outputs(small.eval(), CHECK_SECONDS, decoder)).abs().max())


def _drawn_anew(small: nn.Module, seed: int) -> nn.Module:
    """The same shape with random weights; what is no parameter (feature statistics) stays."""
    torch.manual_seed(seed)
    fresh = build_asr_model(family_of(small).untrained(espnet_config(small)))
    learned = {name for name, _ in small.named_parameters()}
    norms = ("running_mean", "running_var", "num_batches_tracked")
    kept = {
        name: value
        for name, value in small.state_dict().items()
        if name not in learned and not name.endswith(norms)
    }
    load_strictly(fresh, {**fresh.state_dict(), **kept}, "statistics of the features")
    return fresh


def _prunable_parameters(gated: GatedModel) -> int:
    """The denominator in parameters, also where the budget counts MACs."""
    return Budget(gated.site_map, gated.gate_names(), "parameters").prunable
