"""No pruning: the same model with the same updates, for a fair comparison."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from espnet_prune.methods.base import Method, unit_scores
from espnet_prune.sites import Site
from espnet_prune.surgery import GatedModel


class Unpruned(Method):
    """Every unit stays; its only target is 0."""

    target_range: ClassVar[tuple[float, float]] = (0.0, 0.0)

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        return self._highest(gated, unit_scores(gated, Site.magnitudes))
