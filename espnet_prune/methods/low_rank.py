"""Truncated matrices: every linear layer as two, by what its outputs lose.

The directions of a layer that hold least go, over all layers together, and its weights are cut into
two factors (``sites.low_rank``); finetuned with as many updates as every other system. Directions
are the left singular vectors of the weights, or, by ``basis: outputs``, the principal components of
what the layers give on calibration utterances, which is the best approximation of those outputs by
so many directions (as in SVD-LLM, Wang et al. 2024, arXiv 2403.07378, by another way). Ours: layers
are compared by the share of their outputs' power, or of their weights' squares, that a direction
holds, for what it costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from espnet_prune.config import check_choice
from espnet_prune.methods.base import DataMethod, Pass, RankMethod
from espnet_prune.methods.options import CalibrationConfig, MethodConfig
from espnet_prune.sites.low_rank import RankSite
from espnet_prune.surgery import GatedModel
from espnet_prune.surgery.inputs import watch

BASES = ("outputs", "weights")
TINY = 1e-30


@dataclass(frozen=True)
class LowRankConfig(MethodConfig):
    """Options of truncated matrices.

    Attributes:
        basis: ``outputs``, by data, or ``weights``.
        calibration: what is seen.
    """

    basis: str = "outputs"
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    def __post_init__(self) -> None:
        check_choice("basis", self.basis, BASES)


class LowRank(RankMethod, DataMethod):
    """Directions by what they hold, for what they cost."""

    Config: ClassVar[type[MethodConfig]] = LowRankConfig

    @property
    def calibration_utterances(self) -> int:
        """None where weights alone are looked at."""
        return super().calibration_utterances if self.config.basis == "outputs" else 0

    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """The masks (units,) of all matrices; by data, their directions are set, too."""
        self.check_passes(passes)
        sites: list[RankSite] = list(gated.site_map.sites.values())
        if self.config.basis == "outputs":
            scores = {
                site.name: _turned(site, gram)
                for site, gram in zip(sites, output_grams(gated, sites, passes), strict=True)
            }
        else:
            scores = {site.name: _share(site.magnitudes().square()) for site in sites}
        return self._highest(gated, {site.name: scores[site.name] for site in sites})


@torch.no_grad()
def _turned(site: RankSite, gram: Tensor) -> Tensor:
    """Sets a layer's directions; what each holds for what it costs, float64 (units,)."""
    outputs, inputs = site.layer.weight.shape
    power, vectors = torch.linalg.eigh(gram)  # ascending
    directions = vectors.flip(1)[:, : site.units]
    site.layer.basis.copy_(directions)
    held = power.flip(0)[: site.units].clamp_min(0) / gram.trace().clamp_min(TINY)
    return (held / (outputs + inputs)).cpu()


def _share(held: Tensor) -> Tensor:
    """The same of weights: their squares for what they cost, as shares."""
    return (held / held.sum().clamp_min(TINY)).cpu()


@torch.no_grad()
def output_grams(
    gated: GatedModel, sites: Sequence[RankSite], passes: Sequence[Pass]
) -> list[Tensor]:
    """Y^T Y (outputs, outputs), float64, of what each layer gives without its bias.

    Args:
        gated: the gated model, in evaluation mode.
        sites: those of matrices.
        passes: each runs it on an utterance.
    """
    grams = {
        id(s.layer): s.layer.weight.new_zeros([len(s.layer.weight)] * 2).double() for s in sites
    }

    def keep(layer: nn.Linear, inputs: tuple, output: Tensor) -> None:
        rows = (output if layer.bias is None else output - layer.bias).reshape(-1, output.shape[-1])
        grams[id(layer)] += (rows.T @ rows).double()

    watch(gated, passes, [(site.layer, keep) for site in sites])
    return [grams[id(site.layer)] for site in sites]
