"""Random pruning of units: what any method has to beat."""

from collections.abc import Mapping

import torch
from torch import Tensor

from espnet_prune.budget import fill_to_target, keep_highest
from espnet_prune.methods.base import Method, unit_scores
from espnet_prune.surgery import GatedModel


class RandomUnits(Method):
    """Units are ranked by seeded noise, all together."""

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        scores, tolerance = self.order(gated), self.config.budget.tolerance
        masks = keep_highest(scores, gated.budget, self.target)
        return fill_to_target(masks, scores, gated.budget, self.target, tolerance)

    def order(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The noise."""
        generator = torch.Generator().manual_seed(self.seed)
        return unit_scores(gated, lambda site: torch.rand(site.units, generator=generator))
