"""Factors of kept units that bring a layer's output near the dense model's, by least squares.

After Kwon et al. 2022 (arXiv 2204.09656, the last step). A unit's contribution to the layer that
reads it is its activations times that layer's columns, so both sides of the normal equations come
from products of activations and of columns, and no contribution is ever held by itself.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from espnet_prune.sites.base import ConsumedSite, Site
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.inputs import inputs_of

logger = logging.getLogger(__name__)
LARGEST_FACTOR = 10.0  # code of Kwon et al.: factors beyond +-10 are not trusted


@torch.no_grad()
def rescale(
    gated: GatedModel,
    masks: Mapping[str, Tensor],
    passes: Sequence[Callable[[], object]],
    damping: float,
) -> dict[str, Tensor]:
    """Masks whose kept values are least-squares factors, block by block from the input.

    Args:
        gated: the gated model, in evaluation mode.
        masks: resolved masks (units,) of all sites, 0 and 1.
        passes: each runs the gated model on one utterance, without padding.
        damping: how much the factors' distance from 1 counts, relative to the diagonal's mean.

    Returns:
        The same masks with factors; sites of which nothing or all is gone keep their values, and so
        do those whose factors would be large, with a warning.
    """
    device = next(gated.model.parameters()).device
    scaled = {name: mask.to(device) for name, mask in masks.items()}
    sites = [
        site for name, site in gated.site_map.sites.items() if _wants_factors(site, masks[name])
    ]
    for block in sorted({site.block for site in sites}):
        members = [site for site in sites if site.block == block]
        for site, system in zip(members, _systems(gated, members, scaled, passes), strict=True):
            factors = _solve(*system, damping)
            if factors.abs().max() > LARGEST_FACTOR:
                logger.warning("%s: factors beyond %g, not rescaled", site.name, LARGEST_FACTOR)
                continue
            mask = scaled[site.name].clone()
            mask[mask != 0] = factors.to(mask)
            scaled[site.name] = mask
    return scaled


def _wants_factors(site: Site, mask: Tensor) -> bool:
    if not isinstance(site, ConsumedSite) or site.block is None:
        return False
    at_a_time = site.consumer.weight[0].numel() == site.consumer.weight.shape[1]  # reads one frame
    return at_a_time and bool((mask == 0).any() and (mask != 0).any())


def _systems(
    gated: GatedModel,
    sites: Sequence[ConsumedSite],
    masks: Mapping[str, Tensor],
    passes: Sequence[Callable[[], object]],
) -> list[tuple[Tensor, Tensor]]:
    """The normal equations (kept, kept) and (kept,) of each site, summed over all passes."""
    device = sites[0].consumer.weight.device
    columns = [s.columns(masks[s.name].cpu().nonzero()[:, 0]).to(device) for s in sites]
    whole = [s.columns(torch.arange(s.units)).to(device) for s in sites]  # others may share a layer
    own: list[Tensor | float] = [0.0] * len(sites)
    cross: list[Tensor | float] = [0.0] * len(sites)
    for run in passes:
        dense = inputs_of(gated, sites, {}, run)
        small = inputs_of(gated, sites, masks, run)
        for i, kept in enumerate(columns):
            ours = small[i][:, kept]
            own[i] = own[i] + (ours.T @ ours).double()
            cross[i] = cross[i] + (ours.T @ dense[i][:, whole[i]]).double()
    systems = []
    for site, kept, all_own, squares, products in zip(
        sites, columns, whole, own, cross, strict=True
    ):
        weight = site.consumer.weight.flatten(1).double()
        weights = weight[:, kept].T @ weight
        left = _by_unit(_by_unit(squares * weights[:, kept], site.width).T, site.width)
        right = (products * weights[:, all_own]).sum(dim=1)
        systems.append((left, _by_unit(right, site.width)))
    return systems


def _by_unit(values: Tensor, width: int) -> Tensor:
    """Sums the ``width`` rows of each unit: (units * width, ...) -> (units, ...)."""
    return values.reshape(-1, width, *values.shape[1:]).sum(dim=1)


def _solve(left: Tensor, right: Tensor, damping: float) -> Tensor:
    """Factors (units,): least squares, and damping * mean diagonal * |factors - 1|^2."""
    ones = torch.ones_like(right)
    ridge = damping * left.diagonal().mean().clamp_min(torch.finfo(left.dtype).tiny)
    regular = left + ridge * torch.eye(len(right), dtype=left.dtype, device=left.device)
    return ones + torch.linalg.solve(regular, right - left @ ones)
