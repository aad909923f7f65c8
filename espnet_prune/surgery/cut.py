"""cut: really smaller tensors, with the outputs of the masked model."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.sites import SiteMap
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.inject import sites_of
from espnet_prune.surgery.plan import Plan

PLAN_ATTRIBUTE = "espnet_prune_plan"


def cut(gated: GatedModel, masks: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Cuts a gated model by its fixed masks; the gated model stays as it was.

    Args:
        gated: the gated model.
        masks: resolved hard masks (units,) of every site; by default those of its gates.

    Returns:
        The small model, of the wrapped model's class, its plan attached.
    """
    for module in gated.modules():  # ESPnet keeps the last attention map, with its graph
        if isinstance(getattr(module, "attn", None), Tensor):
            module.attn = None
    twin = copy.deepcopy(gated)
    masks = twin.hard_masks() if masks is None else masks
    model = twin.release()
    plan = apply_masks(twin.site_map, masks)
    setattr(model, PLAN_ATTRIBUTE, plan)
    return model


@torch.no_grad()
def apply_masks(site_map: SiteMap, masks: Mapping[str, Tensor]) -> Plan:
    """Cuts all sites in place and returns the plan."""
    for name, site in site_map.sites.items():
        mask = masks[name].detach().cpu()
        kept = mask.nonzero()[:, 0]
        site.cut(kept, mask[kept])
    return Plan.from_masks(site_map, masks)


def cut_to_plan(model: nn.Module, plan: Plan) -> nn.Module:
    """Cuts a dense model, in place, to a plan's shape; its weights are to be loaded afterwards.

    Raises:
        ModelError: the plan is of a model with other sites or other widths.
    """
    site_map = sites_of(model)
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
    setattr(model, PLAN_ATTRIBUTE, apply_masks(site_map, masks))
    return model


def plan_of(model: nn.Module) -> Plan | None:
    """The plan of a cut model, None for one that was never cut."""
    encoder = getattr(model, "encoder", None)
    return getattr(model, PLAN_ATTRIBUTE, None) or getattr(encoder, PLAN_ATTRIBUTE, None)
