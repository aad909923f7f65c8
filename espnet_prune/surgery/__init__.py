"""Surgery: gates on, gates off, the cut, and saving what is left."""

from espnet_prune.surgery.cut import cut, cut_to_plan
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.inject import inject, sites_of
from espnet_prune.surgery.plan import Plan, plan_of
from espnet_prune.surgery.serialize import load, load_strictly, save

__all__ = [
    "GatedModel",
    "Plan",
    "cut",
    "cut_to_plan",
    "inject",
    "load",
    "load_strictly",
    "plan_of",
    "save",
    "sites_of",
]
