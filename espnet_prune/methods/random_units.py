"""Random pruning of units: what any method has to beat."""

from collections.abc import Mapping

import torch
from torch import Tensor

from espnet_prune.methods.base import Method, unit_scores
from espnet_prune.surgery import GatedModel


class RandomUnits(Method):
    """Units are ranked by seeded noise, all together."""

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        return self._highest(gated, self.order(gated))

    def order(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The noise."""
        generator = torch.Generator().manual_seed(self.seed)
        return unit_scores(gated, lambda site: torch.rand(site.units, generator=generator))
