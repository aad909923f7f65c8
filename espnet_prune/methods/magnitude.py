"""Magnitude pruning of whole units: the smallest root mean square weights go.

The classical baseline (Han et al. 2015 for single weights), here on the sites' units; the root
mean square rather than the norm, so that units of different sizes can be ranked together: ours.
"""

from collections.abc import Mapping

from torch import Tensor

from espnet_prune.budget import keep_highest, keep_same_share
from espnet_prune.methods.base import Method, unit_scores
from espnet_prune.sites import Site
from espnet_prune.surgery import GatedModel


class Magnitude(Method):
    """All units of the model are ranked together; sites end up with different widths."""

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        return keep_highest(unit_scores(gated, Site.magnitudes), gated.budget, self.target)


class UniformMagnitude(Method):
    """Every site keeps the same share of its units, the largest."""

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        return keep_same_share(unit_scores(gated, Site.magnitudes), gated.budget, self.target)
