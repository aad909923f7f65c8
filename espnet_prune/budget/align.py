"""Widths that are multiples of a number, at the same size: such matrices fill vector registers.

This project's own rule. One site after the other, the coarsest first, goes to the multiple above or
below its width, whichever keeps the size nearer to its target; then widths take single steps more,
those first that stay nearest to what they were, as long as the size comes nearer. A site that is
gone stays gone, and one that was open stays open.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from espnet_prune.budget.cost import Budget
from espnet_prune.errors import TargetMissedError


def align_widths(
    masks: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    budget: Budget,
    target: float,
    tolerance: float,
    multiple: int,
) -> dict[str, Tensor]:
    """Masks whose widths are multiples of a number, or all of a site's units.

    Args:
        masks: resolved masks (units,) of all sites.
        scores: one score a unit, (units,), for each site that is aligned; the lowest are closed,
            the highest are opened, with a mask of 1.
        budget: counts them.
        target: wanted hard sparsity.
        tolerance: allowed distance from it.
        multiple: what widths shall be multiples of.

    Returns:
        The masks of all sites; those of other sites are what they were.

    Raises:
        TargetMissedError: no such widths come near enough.
    """
    before = {name: int((mask != 0).sum()) for name, mask in masks.items()}
    open_sites = [name for name in scores if before[name]]
    levels = {name: _levels(len(scores[name]), multiple) for name in open_sites}
    widths = _to_target(_rounded(before, levels, budget, target), before, levels, budget, target)
    gap = _gap(widths, budget, target)
    if abs(gap) > tolerance:
        raise TargetMissedError(
            f"budget: align: with widths of multiples of {multiple} the nearest sparsity is "
            f"{target + gap:.2%}, {100 * abs(gap):.2f} points from the target {target:.2%} "
            f"(tolerance {tolerance:.2%}); choose a smaller align or a larger tolerance"
        )
    aligned = dict(masks)
    for name in open_sites:
        aligned[name] = _at_width(masks[name], scores[name], widths[name])
    return aligned


def _levels(units: int, multiple: int) -> list[int]:
    """Widths that a site may have."""
    return [*range(multiple, units, multiple), units]


def _rounded(
    before: Mapping[str, int], levels: Mapping[str, list[int]], budget: Budget, target: float
) -> dict[str, int]:
    """Each width at one of the two levels beside it; each choice makes up for those before it."""
    widths = dict(before)

    def gap_with(name: str, width: int) -> float:
        return _gap({**widths, name: width}, budget, target)

    def coarseness(name: str) -> float:
        return abs(gap_with(name, 0) - gap_with(name, levels[name][0]))

    for name in sorted(levels, key=coarseness, reverse=True):
        beside = sorted(levels[name], key=lambda width: abs(width - before[name]))[:2]
        widths[name] = min(beside, key=lambda width: abs(gap_with(name, width)))
    return widths


def _to_target(
    widths: dict[str, int],
    before: Mapping[str, int],
    levels: Mapping[str, list[int]],
    budget: Budget,
    target: float,
) -> dict[str, int]:
    """Single steps, for as long as one brings the size nearer to its target."""
    while True:
        gap = _gap(widths, budget, target)
        steps = []
        for name, allowed in levels.items():
            place = allowed.index(widths[name]) + (1 if gap > 0 else -1)
            if not 0 <= place < len(allowed):
                continue
            tried = {**widths, name: allowed[place]}
            if abs(_gap(tried, budget, target)) < abs(gap):
                steps.append((abs(allowed[place] - before[name]), name, tried))
        if not steps:
            return widths
        widths = min(steps, key=lambda step: step[:2])[2]


def _gap(widths: Mapping[str, int], budget: Budget, target: float) -> float:
    """How far the sparsity lies above the target."""
    return float(budget.sparsity(budget.count(widths))) - target


def _at_width(mask: Tensor, scores: Tensor, width: int) -> Tensor:
    """A mask of ``width`` units: the lowest scores close, or the highest open."""
    mask = mask.clone()
    kept = (mask != 0).to(scores.device)
    change = int(kept.sum()) - width
    places = torch.nonzero(kept if change > 0 else ~kept)[:, 0]
    order = torch.argsort(scores[places], descending=change < 0, stable=True)
    mask[places[order[: abs(change)]].to(mask.device)] = 0.0 if change > 0 else 1.0
    return mask
