"""Stage 9 of one system: the masks fixed at the target, the model cut, checked and saved."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from espnet_prune.budget import Budget
from espnet_prune.errors import ModelError, TargetMissedError
from espnet_prune.io_torch import read_torch
from espnet_prune.methods import Method
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.models.espnet.features import random_outputs
from espnet_prune.models.espnet.format import espnet_config
from espnet_prune.record import read_record, update_record
from espnet_prune.sites import DECODER, WEIGHT, count_parameters
from espnet_prune.surgery import GatedModel, cut, inject, load, load_strictly
from espnet_prune.surgery.families import family_of
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.serialize import WEIGHTS
from espnet_prune.surgery.sparse import check_zeros, count_zeroed, zeros_of
from espnet_prune.train.calibration import read_masks, refit_on_data, take_weights
from espnet_prune.train.system import parts_of, write_cut
from espnet_prune.train.system_config import SystemConfig

logger = logging.getLogger(__name__)
CHECK_SECONDS = 2.0
DEAF = (
    "%s: no channel of the front-end is left, so the model hears nothing and finetuning can't mend "
    "it; leave the front-end whole (options: {sites: [head, feed_forward_unit, "
    "convolution_channel]}), or choose a method that doesn't rank kinds of units together"
)
CUT_TOLERANCE = 1e-4  # of outputs of the order of 1: float32 sums in another order


def cut_system(out: Path, config: SystemConfig) -> float:
    """Stage 9: fixes the masks at the target, cuts, checks, saves.

    Args:
        out: the system's folder.
        config: its configuration.

    Returns:
        The largest difference between masked and cut model on random features.

    Raises:
        TargetMissedError: the hard sparsity is further from the target than the tolerance.
        ModelError: masked and cut model differ.
    """
    method, teacher = config.build_method(), config.teacher / "model"
    gated = inject(load(config.pruned), method)
    zeros = zeros_of(gated.model)
    if method.learns_masks:
        _read_learned(gated, out)
    expected = float(gated.expected_sparsity().detach())
    gated.eval()
    if method.calibration_utterances:
        take_weights(gated, out / "prune")
        masks = read_masks(out / "prune")
    else:
        masks = method.aligned(gated, method.masks(gated))
    method.rewrite(gated, masks)
    if method.refit is not None:
        masks = refit_on_data(gated, masks, method.refit, config)
    if not gated.site_map.of_kinds((WEIGHT,)):
        check_zeros(gated.model, zeros, f"method: {config.method}")
    kept = gated.budget.hard(masks)
    reached = float(gated.budget.sparsity(kept))
    _check_reached(out, method, gated, reached)
    totals = _sizes(gated.model)
    dense = totals if config.origin is None else _sizes(load(teacher))
    small = cut(gated, masks)
    difference = _difference(gated, masks, small)
    if family_of(small).hears_nothing(small):
        logger.warning(DEAF, out)
    if difference > CUT_TOLERANCE:
        raise ModelError(f"{out}: masked and cut model differ by {difference:.2g}; this is a bug")
    if method.from_scratch:
        small = _drawn_anew(small, config.seed)
    write_cut(out, small, "cut")
    kept_sizes = {
        name: count_parameters(part) - count_zeroed(small, part)
        for name, part in parts_of(small).items()
    }
    removed = totals["total"] - kept_sizes["total"]
    prunable = _prunable_parameters(gated)
    about = {
        "sparsity": {
            "measure": gated.budget.measure,
            "kept": kept,
            "total": gated.budget.prunable,
            "value": reached,
            "expected": expected if method.learns_masks else None,
        },
        "params": {
            "prunable": {"kept": prunable - removed, "dense": prunable},
            **{k: {"kept": kept_sizes[k], "dense": dense[k]} for k in dense},
        },
    }
    if config.origin is not None and not method.target:  # nothing more is taken out of it
        before = read_record(config.origin)
        about = {key: before[key] for key in ("method", "target", *about)}
    update_record(
        out,
        **about,
        weights_bytes={
            "kept": (out / "cut" / WEIGHTS).stat().st_size,
            "dense": (teacher / WEIGHTS).stat().st_size,
        },
        masked_equals_cut={"max_difference": difference, "tolerance": CUT_TOLERANCE},
    )
    return difference


def _sizes(model: nn.Module) -> dict[str, int]:
    """Parameters of each part."""
    return {name: count_parameters(part) for name, part in parts_of(model).items()}


def _check_reached(out: Path, method: Method, gated: GatedModel, reached: float) -> None:
    gap, tolerance = abs(reached - method.target), method.config.budget.tolerance
    if gap > tolerance:
        raise TargetMissedError(
            f"{out}: the cut would reach {reached:.2%} of {gated.budget.prunable} prunable "
            f"{gated.budget.measure}, {100 * gap:.2f} points from the target {method.target:.2%} "
            f"(tolerance {tolerance:.2%}); train longer, raise gate_learning_rate, or gate finer "
            "sites"
        )


def _read_learned(gated: GatedModel, out: Path) -> None:
    """Takes the weights and gates that stage 8 left last."""
    last = out / "prune" / "latest.pth"
    if not last.exists():
        raise ModelError(f"{last}: no such file; run stage 8 (prune) to its end first")
    found = read_torch(last).items()
    own = {k.removeprefix("gated."): value for k, value in found if k.startswith("gated.")}
    load_strictly(gated, own, str(last))


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
