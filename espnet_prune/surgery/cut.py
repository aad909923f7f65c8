"""cut: really smaller tensors, with the outputs of the masked model."""

import copy
import logging
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.gates import FixedGate, Gate
from espnet_prune.sites import (
    DECODER,
    RANK,
    SOFTMAX,
    WEIGHT,
    DecoderConfig,
    SiteMap,
    rank_sites,
    softmax_sites,
)
from espnet_prune.surgery.families import family_of
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.plan import PARTS, PLAN_ATTRIBUTE, Plan, plan_of
from espnet_prune.surgery.sparse import mark_sparse, sparse_layers

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=nn.Module)
REFERENCE_SECONDS = 10.0  # of a cut to a plan, which counts nothing


def cut(gated: GatedModel, masks: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Cuts a gated model by its fixed masks; the gated model stays as it was.

    Args:
        gated: the gated model.
        masks: resolved hard masks (units,) of every site, such as ``method.masks(gated)``, which
            are at the method's target; by default those of its gates, rounded site by site.

    Returns:
        The small model, of the wrapped model's class, its plan attached; where single weights are
        gated, one of the same shape with zeros, marked as sparse.

    Logs a warning where no masks are given and its gates, which learn none, were given none.
    """
    if masks is None and all(_holds_none(gate) for gate in gated.gates.values()):
        logger.warning(
            "cut: nothing is cut, since this method's gates learn no masks; give those that it "
            "chooses: cut(gated, method.masks(gated))"
        )
    twin = twin_of(gated)
    masks = twin.hard_masks() if masks is None else masks
    model = twin.release()
    zeroed = [layer for site in twin.site_map.of_kinds((WEIGHT,)) for layer in site.layers()]
    sparse = [*sparse_layers(model), *zeroed]
    _cut_sites(twin.site_map, masks)
    if sparse:
        mark_sparse(model, [layer.weight for layer in sparse])
    if not zeroed:
        _attach_plan(model, Plan.from_masks(twin.site_map, masks))
    return model


def _attach_plan(model: nn.Module, plan: Plan) -> None:
    """Gives a cut model its plan, which counts from the model that was never cut."""
    before = plan_of(model)
    for part in (getattr(model, name, None) for name in PARTS):
        if hasattr(part, PLAN_ATTRIBUTE):
            delattr(part, PLAN_ATTRIBUTE)
    setattr(model, PLAN_ATTRIBUTE, plan if before is None else plan.after(before))


def _holds_none(gate: Gate) -> bool:
    return isinstance(gate, FixedGate) and bool(gate.mask.eq(1).all())


def twin_of(module: M) -> M:
    """A copy that shares nothing; ESPnet's last attention maps, which have a graph, are let go."""
    for part in module.modules():
        if isinstance(getattr(part, "attn", None), Tensor):
            part.attn = None
    return copy.deepcopy(module)


@torch.no_grad()
def _cut_sites(site_map: SiteMap, masks: Mapping[str, Tensor]) -> None:
    for name, site in site_map.sites.items():
        mask = masks[name].detach().cpu()
        kept = mask.nonzero()[:, 0]
        site.cut(kept, mask[kept])


def cut_to_plan(model: nn.Module, plan: Plan) -> nn.Module:
    """Cuts a dense model, in place, to a plan's shape; its weights are to be loaded afterwards.

    Raises:
        ModelError: the plan is of a model with other sites or other widths.
    """
    family = family_of(model)
    units = plan.of_kinds((RANK, SOFTMAX), others=True)
    ranks, attentions = plan.of_kinds((RANK,)), plan.of_kinds((SOFTMAX,))
    if units is not None or ranks is attentions is None:
        units = units or plan
        both = family.chooses_decoder(model) and units.part(DECODER) is not None
        decoder = DecoderConfig() if both else None
        cut_to(units, family.sites(model, REFERENCE_SECONDS, decoder))
    if attentions is not None:
        blocks = family.attentions(model)
        cut_to(attentions, softmax_sites(blocks.model, blocks.layers, REFERENCE_SECONDS))
    if ranks is not None:
        found = family.matrices(model)
        site_map = rank_sites(found.model, found.layers, REFERENCE_SECONDS)
        for name, site in ranks.sites.items():
            if site.lender is not None and {name, site.lender} <= site_map.sites.keys():
                site_map.sites[name].lender = site_map.sites[site.lender]
        cut_to(ranks, site_map)
    setattr(model, PLAN_ATTRIBUTE, plan)
    return model


def cut_to(plan: Plan, site_map: SiteMap) -> None:
    """Cuts sites to a plan's shape, in place.

    Raises:
        ModelError: the plan is of other sites or other widths.
    """
    if set(plan.sites) != set(site_map.sites):
        differing = sorted(set(plan.sites) ^ set(site_map.sites))
        raise ModelError(f"plan: made for another model; sites differ: {differing[:5]}")
    masks = {}
    for name, site in site_map.sites.items():
        if plan.sites[name].units != site.units:
            raise ModelError(
                f"plan: site '{name}' had {plan.sites[name].units} "
                f"units, the model has {site.units}"
            )
        masks[name] = torch.zeros(site.units)
        masks[name][list(plan.sites[name].kept)] = 1.0
    _cut_sites(site_map, masks)
