"""Magnitude pruning of whole units: the smallest root mean square weights go.

The classical baseline (Han et al. 2015 for single weights), here on the sites' units; the root
mean square rather than the norm, so that units of different sizes can be ranked together: ours.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from espnet_prune.budget import keep_same_share
from espnet_prune.methods.base import Method, WeightMethod, unit_scores
from espnet_prune.sites import WEIGHT, Site
from espnet_prune.surgery import GatedModel


class Magnitude(Method):
    """All units of the model are ranked together; sites end up with different widths."""

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        return self._highest(gated, unit_scores(gated, Site.magnitudes))


class UniformMagnitude(Method):
    """Every site keeps the same share of its units, the largest, but for a few of all sites."""

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        scores, tolerance = unit_scores(gated, Site.magnitudes), self.config.budget.tolerance
        return keep_same_share(scores, gated.budget, self.target, tolerance)


class UniformMagnitudeWeights(WeightMethod):
    """Every matrix of attention and feed-forward keeps the same share of its weights, the largest.

    P2's baseline, "uniform magnitude pruning"; zeros make files smaller and nothing faster.
    """

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        masks = {}
        for site in gated.site_map.of_kinds((WEIGHT,)):
            masks[site.name] = mask = torch.ones(site.units)
            smallest = torch.argsort(site.magnitudes().cpu(), stable=True)
            mask[smallest[: round(self.target * site.units)]] = 0.0
        return masks
