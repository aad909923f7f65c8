"""Hard masks that hit a size: a threshold or a shift, found by bisection."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from espnet_prune.budget.cost import Budget
from espnet_prune.budget.hierarchy import resolve

BISECTIONS = 60


def masks_at_sparsity(
    make: Callable[[float], Mapping[str, Tensor]],
    budget: Budget,
    target: float,
    low: float,
    high: float,
) -> tuple[dict[str, Tensor], float]:
    """Finds the knob whose resolved masks come nearest to the target sparsity.

    Args:
        make: from the knob to masks of the gated sites; sparsity must not rise with the knob.
        budget: counts them.
        target: wanted hard sparsity.
        low: a knob value at which too much is removed, or all.
        high: one at which too little is removed, or nothing.

    Returns:
        The resolved masks of all sites, and the knob.
    """
    best: tuple[float, dict[str, Tensor], float] | None = None
    for _ in range(BISECTIONS):
        knob = (low + high) / 2
        masks = resolve(budget.structure, make(knob))
        gap = float(budget.sparsity(budget.hard(masks))) - target
        if best is None or abs(gap) < best[0]:
            best = (abs(gap), masks, knob)
        if gap > 0:
            low = knob
        else:
            high = knob
    return best[1], best[2]


def keep_highest(scores: Mapping[str, Tensor], budget: Budget, target: float) -> dict[str, Tensor]:
    """Masks that keep the highest scores over all sites together, at the target sparsity.

    Args:
        scores: one score a unit, (units,), for each site that may be cut.
        budget: counts them.
        target: wanted hard sparsity.
    """
    names = list(scores)
    flat = torch.cat([scores[name].double() for name in names])
    ranks = torch.empty_like(flat)
    ranks[torch.argsort(flat, stable=True)] = torch.arange(len(flat), dtype=flat.dtype)
    split = dict(zip(names, ranks.split([len(scores[name]) for name in names]), strict=True))

    def make(kept: float) -> dict[str, Tensor]:
        return {name: (rank >= len(flat) - kept).float() for name, rank in split.items()}

    return masks_at_sparsity(make, budget, target, 0.0, float(len(flat)))[0]


def keep_same_share(
    scores: Mapping[str, Tensor], budget: Budget, target: float
) -> dict[str, Tensor]:
    """Masks that keep the same share of every site's units, its highest scores.

    Args:
        scores: one score a unit, (units,), for each site that may be cut.
        budget: counts them.
        target: wanted hard sparsity.
    """
    shares = {}
    for name, score in scores.items():
        order = torch.argsort(score, descending=True, stable=True)
        position = torch.empty(len(score), dtype=torch.float64)
        position[order] = torch.arange(len(score), dtype=torch.float64)
        shares[name] = (position + 0.5) / len(score)

    def make(share: float) -> dict[str, Tensor]:
        return {name: (position < share).float() for name, position in shares.items()}

    return masks_at_sparsity(make, budget, target, 0.0, 1.0)[0]
