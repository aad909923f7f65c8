"""Model folding: clusters of similar units are merged instead of units being dropped.

"Forget the Data and Fine-Tuning! Just Fold the Network to Compress", Wang et al. 2025 (arXiv
2502.10216); ``surgery.fold`` says how units are described, clustered and merged. Heads,
feed-forward units and channels are folded, each site to the same share of its units. No data there
and no finetuning; here finetuned with as many updates as every other system.

A merged unit varies less than those that it stands for, so the paper repairs the statistics of the
norms behind them: with no data by an approximation, with data as REPAIR does. ``FoldingRepaired``
is the latter (``surgery.repair``), for the batch norms of convolutions; there is no other norm that
has statistics.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.budget import keep_same_share, resolve
from espnet_prune.errors import ModelError
from espnet_prune.methods.base import DataMethod, Method, Pass, unit_scores
from espnet_prune.methods.options import DataConfig, MethodConfig
from espnet_prune.sites import Site
from espnet_prune.sites.base import read_once
from espnet_prune.surgery import GatedModel
from espnet_prune.surgery.fold import clusters_of, fold
from espnet_prune.surgery.repair import repair_statistics


class Folding(Method):
    """Every site keeps the same share of its units, each standing for a cluster.

    Example:
        masks = method.masks(gated)
        method.rewrite(gated, masks)  # without it, the clusters' other units are merely dropped
        small = espnet_prune.cut(gated, masks)
    """

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The first unit of each cluster stays."""
        scores = unit_scores(gated, Site.magnitudes)
        tolerance = self.config.budget.tolerance
        shares = keep_same_share(scores, gated.budget, self.target, tolerance)
        return _first_ones(gated, {name: shares[name] for name in scores})

    def aligned(
        self, gated: GatedModel, masks: Mapping[str, Tensor], target: float | None = None
    ) -> Mapping[str, Tensor]:
        """As many clusters as the aligned width."""
        widths = super().aligned(gated, masks, target)
        names = unit_scores(gated, Site.magnitudes)
        return _first_ones(gated, {name: widths[name] for name in names})

    def rewrite(self, gated: GatedModel, masks: Mapping[str, Tensor]) -> None:
        """Merges the clusters into the units that stay, in place.

        Raises:
            ModelError: masks of something else, whose kept units are no clusters' first ones.
        """
        names = unit_scores(gated, Site.magnitudes)
        clusters = {name: _clusters(gated, name, masks[name]) for name in names}
        for name, found in clusters.items():
            if masks[name].nonzero()[:, 0].tolist() != [int(members[0]) for members in found]:
                raise ModelError(f"{name}: these masks weren't made by folding this model")
        for name, found in clusters.items():
            fold(gated.site_map.sites[name], found)


class FoldingRepaired(Folding, DataMethod):
    """The same, with the batch norms' statistics estimated anew on calibration utterances."""

    Config: ClassVar[type[MethodConfig]] = DataConfig

    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """Those of folding."""
        self.check_passes(passes)
        return super().masks(gated)

    def compensate(
        self, gated: GatedModel, masks: Mapping[str, Tensor], passes: Sequence[Pass]
    ) -> None:
        """Merges the clusters, and then lets the norms see what became of them."""
        super().rewrite(gated, masks)
        repair_statistics(gated, masks, passes)

    def rewrite(self, gated: GatedModel, masks: Mapping[str, Tensor]) -> None:
        """Nothing more; ``compensate`` has merged."""
        return


def _first_ones(gated: GatedModel, masks: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Resolved masks of each cluster's first unit, as many clusters as a site's mask keeps."""
    firsts = {}
    for name, mask in masks.items():
        firsts[name] = torch.zeros_like(mask)
        for members in _clusters(gated, name, mask):
            firsts[name][members[0]] = 1.0
    return resolve(gated.site_map, firsts)


def _clusters(gated: GatedModel, name: str, mask: Tensor) -> list[Tensor]:
    """As many clusters of a site as units are kept."""
    return clusters_of(read_once(gated.site_map.sites[name]), int((mask != 0).sum()))
