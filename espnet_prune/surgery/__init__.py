"""Surgery: gates on, gates off, the cut, and saving what is left."""

from espnet_prune.surgery.cut import cut, cut_to_plan, plan_of
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.inject import inject, sites_of
from espnet_prune.surgery.plan import Plan

__all__ = ["GatedModel", "Plan", "cut", "cut_to_plan", "inject", "plan_of", "sites_of"]
