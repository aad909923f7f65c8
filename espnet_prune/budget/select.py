"""Hard masks that hit a size: a threshold or a shift, found by bisection."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from espnet_prune.budget.cost import Budget
from espnet_prune.budget.hierarchy import resolve
from espnet_prune.budget.structure import BLOCK, BRANCH

BISECTIONS = 60


def masks_at_sparsity(
    make: Callable[[float], Mapping[str, Tensor]],
    budget: Budget,
    target: float,
    low: float,
    high: float,
) -> tuple[dict[str, Tensor], float]:
    """Finds the knob whose resolved masks come nearest to the target sparsity.

    Where many units hang on one value of the knob, they are closed one by one instead, the
    smallest mask value first.

    Args:
        make: from the knob to masks of the gated sites; sparsity must not rise with the knob.
        budget: counts them.
        target: wanted hard sparsity.
        low: a knob value at which too much is removed, or all.
        high: one at which too little is removed, or nothing.

    Returns:
        The resolved masks of all sites, and the knob.
    """
    for _ in range(BISECTIONS):
        knob = (low + high) / 2
        if _sparsity(budget, make(knob)) > target:
            low = knob
        else:
            high = knob
    return resolve(budget.structure, _between(make(high), make(low), budget, target)), high


def _sparsity(budget: Budget, masks: Mapping[str, Tensor]) -> float:
    return float(budget.sparsity(budget.hard(resolve(budget.structure, masks))))


def _between(
    wide: Mapping[str, Tensor], narrow: Mapping[str, Tensor], budget: Budget, target: float
) -> dict[str, Tensor]:
    """``wide`` masks with as many units closed as the target needs.

    First those that ``narrow`` lacks, then the others, the smallest mask value first; whole
    branches and blocks stay as they are, unless ``narrow`` as it is comes nearer.
    """
    places = budget.structure.sites
    candidates = []
    for name, mask in wide.items():
        if places[name].kind not in (BRANCH, BLOCK):
            for unit in mask.nonzero()[:, 0].tolist():
                stays = bool(narrow[name][unit] != 0)
                candidates.append((stays, float(mask[unit]), name, unit))
    candidates.sort()

    def closed(number: int) -> dict[str, Tensor]:
        masks = {name: mask.clone() for name, mask in wide.items()}
        for _, _, name, unit in candidates[:number]:
            masks[name][unit] = 0.0
        return masks

    few, many = 0, len(candidates)
    while many - few > 1:
        middle = (few + many) // 2
        if _sparsity(budget, closed(middle)) > target:
            many = middle
        else:
            few = middle
    choices = (closed(few), closed(many), dict(narrow))
    return min(choices, key=lambda masks: abs(_sparsity(budget, masks) - target))


def keep_highest(
    scores: Mapping[str, Tensor],
    budget: Budget,
    target: float,
    tolerance: float,
    fixed: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Masks that keep the highest scores over all sites together, at the target sparsity.

    Where a coarse unit is too much, finer ones fill up to the tolerance.

    Args:
        scores: one score a unit, (units,), for each site that may be cut.
        budget: counts them.
        target: wanted hard sparsity.
        tolerance: allowed distance from it.
        fixed: masks of branches and blocks that are settled; by default all are open.
    """
    names = list(scores)
    flat = torch.cat([scores[name].double().cpu() for name in names])
    ranks = torch.empty_like(flat)
    ranks[torch.argsort(flat, stable=True)] = torch.arange(len(flat), dtype=flat.dtype)
    split = dict(zip(names, ranks.split([len(scores[name]) for name in names]), strict=True))

    def make(kept: float) -> dict[str, Tensor]:
        masks = {name: (rank >= len(flat) - kept).float() for name, rank in split.items()}
        return {**masks, **(fixed or {})}

    masks = masks_at_sparsity(make, budget, target, 0.0, float(len(flat)))[0]
    return fill_to_target(masks, scores, budget, target, tolerance, fixed)


def fill_to_target(
    masks: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    budget: Budget,
    target: float,
    tolerance: float,
    fixed: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Brings masks nearer to the target with finer units, where a coarse one was too much.

    Closes the lowest scores, or opens the highest, one by one, leaving out what would overshoot.

    Args:
        masks: resolved masks near the target.
        scores: one score a unit, (units,), for each site that may be cut.
        budget: counts them.
        target: wanted hard sparsity.
        tolerance: allowed distance from it; reached, it stops.
        fixed: masks of branches and blocks that don't follow from their units.
    """
    gap = target - _sparsity(budget, masks)
    closing = gap > 0
    current = {name: masks[name].clone() for name in scores}  # branches follow from their units
    current.update(fixed or {})
    candidates = [
        (float(score[unit]), name, unit)
        for name, score in scores.items()
        for unit in torch.nonzero((masks[name] != 0) == closing)[:, 0].tolist()
    ]
    for _, name, unit in sorted(candidates, reverse=not closing):
        if abs(gap) <= tolerance:
            break
        before = float(current[name][unit])
        current[name][unit] = 0.0 if closing else 1.0
        new = target - _sparsity(budget, current)
        if new * gap < 0 or abs(new) >= abs(gap):
            current[name][unit] = before
        else:
            gap = new
    return resolve(budget.structure, current)


def keep_same_share(
    scores: Mapping[str, Tensor], budget: Budget, target: float, tolerance: float
) -> dict[str, Tensor]:
    """Masks that keep the same share of every site's units, its highest scores.

    Single units more, those whose place in their site is nearest to that share, bring the size
    within the tolerance where it isn't.

    Args:
        scores: one score a unit, (units,), for each site that may be cut.
        budget: counts them.
        target: wanted hard sparsity.
        tolerance: allowed distance from it.
    """
    shares = {name: shares_above(score) for name, score in scores.items()}

    def make(share: float) -> dict[str, Tensor]:
        return {name: (above < share).float() for name, above in shares.items()}

    masks = masks_at_sparsity(make, budget, target, 0.0, 1.0)[0]
    places = {name: -above for name, above in shares.items()}
    return fill_to_target(masks, places, budget, target, tolerance)


def shares_above(score: Tensor) -> Tensor:
    """The share of a site's units with a higher score than each, half of itself included.

    Args:
        score: (units,).

    Returns:
        float64 (units,), on the CPU.
    """
    order = torch.argsort(score.cpu(), descending=True, stable=True)
    position = torch.empty(len(score), dtype=torch.float64)
    position[order] = torch.arange(len(score), dtype=torch.float64)
    return (position + 0.5) / len(score)
