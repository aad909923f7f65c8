"""Which masks follow from which: a branch whose units are all gone is gone, and the reverse.

Where a branch has two sites of units, neither of which works without the other, it is gone with
either.

The last linear of a branch has a bias, so a branch without units would still add a constant.
By this project's rule it doesn't: it equals a branch that is gone.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from espnet_prune.budget.structure import BLOCK, BRANCH, Structure


def close_empty_branches(structure: Structure, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sets a branch's mask to 0 where all of its units of a kind are 0; differentiable otherwise.

    Args:
        structure: the model's sites.
        masks: a mask (units,) for every site that has a gate; others are open.

    Returns:
        The masks, with one for each branch that has gated units.
    """
    closed = dict(masks)
    for name, site in structure.sites.items():
        if site.kind != BRANCH:
            continue
        units = [masks[child] for child in structure.children[name] if child in masks]
        if not units:
            continue
        alive = torch.stack([(unit != 0).any() for unit in units]).all().to(units[0].dtype)
        closed[name] = closed[name] * alive if name in closed else alive.reshape(1)
    return closed


def resolve(structure: Structure, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The consistent hard masks of all sites: nothing lives in a branch or block that is gone.

    Args:
        structure: the model's sites.
        masks: a mask (units,) for every gated site.

    Returns:
        A mask for every site of the map, ones where there is no gate.
    """
    some = next(iter(masks.values()), torch.ones(1))
    full = close_empty_branches(structure, masks)
    full = {n: full.get(n, some.new_ones(s.units)) for n, s in structure.sites.items()}
    for kind in (BLOCK, BRANCH):  # from the top down
        for name, site in structure.sites.items():
            if site.kind == kind and not full[name].any():
                for child in structure.children[name]:
                    full[child] = torch.zeros_like(full[child])
    for name, site in structure.sites.items():
        if site.reader is not None and not full[site.reader].any():
            full[name] = torch.zeros_like(full[name])
    return full
