"""Budget: sizes, sparsity, targets, and the controllers that reach them."""

from espnet_prune.budget.align import align_widths
from espnet_prune.budget.controllers import (
    BAND_STRENGTH_UNITS,
    BAND_STRENGTH_WEIGHTS,
    Band,
    Constraint,
    Controller,
    ControllerConfig,
    Exact,
    Lagrangian,
)
from espnet_prune.budget.cost import COUNTED, MEASURES, Budget
from espnet_prune.budget.growing_pressure import GrowingPressure
from espnet_prune.budget.hierarchy import close_empty_branches, resolve
from espnet_prune.budget.joint import budget_of
from espnet_prune.budget.schedule import LadderSchedule, Rung, TargetSchedule, even_rungs
from espnet_prune.budget.select import (
    fill_to_target,
    keep_highest,
    keep_same_share,
    masks_at_sparsity,
)
from espnet_prune.budget.structure import BLOCK, BRANCH, CostTerm, Structure

__all__ = [
    "BAND_STRENGTH_UNITS",
    "BAND_STRENGTH_WEIGHTS",
    "BLOCK",
    "BRANCH",
    "MEASURES",
    "Band",
    "Budget",
    "Constraint",
    "Controller",
    "ControllerConfig",
    "COUNTED",
    "CostTerm",
    "Exact",
    "GrowingPressure",
    "LadderSchedule",
    "Lagrangian",
    "Rung",
    "Structure",
    "TargetSchedule",
    "align_widths",
    "budget_of",
    "close_empty_branches",
    "even_rungs",
    "fill_to_target",
    "keep_highest",
    "keep_same_share",
    "masks_at_sparsity",
    "resolve",
]
