"""Branches or blocks taken out whole, in an order, up to the target; the last one in part.

What is whole has few sizes. So that all systems are of one size, the branch or block that would be
too much is not taken out but thinned: it loses its units of smallest magnitude.
"""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from espnet_prune.budget import keep_highest, resolve
from espnet_prune.methods.base import unit_scores
from espnet_prune.sites import Site
from espnet_prune.surgery import GatedModel

logger = logging.getLogger(__name__)


def drop_in_order(
    gated: GatedModel, order: Sequence[str], target: float, tolerance: float
) -> dict[str, Tensor]:
    """The resolved masks of all sites.

    Args:
        gated: the gated model.
        order: names of branches or blocks, the first to go first.
        target: wanted sparsity.
        tolerance: allowed distance from it.
    """
    gone: list[str] = []
    for name in order:
        if sparsity_without(gated, [*gone, name]) > target:
            return thinned(gated, gone, name, target, tolerance)
        gone.append(name)
    return thinned(gated, gone, None, target, tolerance)


def thinned(
    gated: GatedModel, gone: Sequence[str], last: str | None, target: float, tolerance: float
) -> dict[str, Tensor]:
    """Masks without the branches or blocks ``gone``, ``last`` thinned by magnitude to the target.

    Where there is no last one, all units are ranked.
    """
    logger.info("taken out: %s; thinned: %s", ", ".join(gone) or "none", last or "all")
    scores = {
        name: score.cpu()
        for name, score in unit_scores(gated, Site.magnitudes).items()
        if last is None or name.startswith(f"{last}.")
    }
    return keep_highest(scores, gated.budget, target, tolerance, closed(gated, gone))


def closed(gated: GatedModel, names: Sequence[str]) -> dict[str, Tensor]:
    """Masks of zeros for some sites."""
    return {name: torch.zeros(gated.site_map.sites[name].units) for name in names}


def sparsity_without(gated: GatedModel, names: Sequence[str]) -> float:
    """Hard sparsity where the named sites alone are gone."""
    masks = resolve(gated.site_map, closed(gated, names))
    return float(gated.budget.sparsity(gated.budget.hard(masks)))
