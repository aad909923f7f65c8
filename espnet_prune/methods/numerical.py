"""Numerical pruning: Newton's mask for every layer's reconstruction, and weights that compensate.

"Numerical Pruning for Efficient Autoregressive Models", Shen et al. 2025 (arXiv 2412.12441). For
the layer that reads the units, Y = X W with columns of X for the units' outputs, real masks z
minimise (their equation 3)

    1/2 |X W - X (z o W)|^2 + 1/2 lambda (sum z - r)^2,    r = (1 - sparsity) columns,

whose Hessian is (W W^T) o (X^T X) + lambda 1 1^T. It is constant, so Newton's first step is the
last, and z = 1 - c H^{-1} 1 in closed form. A unit's score is the mean of z over its columns
(equation 7), and all sites are ranked together. Then the weights that read the kept units are moved
so that X W changes least (theorem 3); the others stay.

Ours: lambda, and the damping of the Hessians, both relative to the mean of a Hessian's diagonal;
convolutions are such layers too, a window of the kernel being a row of X; the published factor on
heads' scores is left out, by which every feed-forward unit would go before the first head.
Training-free there; here finetuned with as many updates as every other system.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.config import check_range
from espnet_prune.methods.base import DataMethod, Pass, unit_sites
from espnet_prune.methods.options import DataConfig, MethodConfig
from espnet_prune.sites.base import ConsumedSite
from espnet_prune.surgery import GatedModel
from espnet_prune.surgery.compensate import compensate
from espnet_prune.surgery.inputs import by_unit, gram_matrices, weight_of


@dataclass(frozen=True)
class NewtonConfig:
    """Options of score and compensation.

    Attributes:
        penalty: lambda, relative to the mean of the Hessian's diagonal.
        damping: added to the diagonals, likewise.
        compensate: whether the weights that read the kept units are moved.
    """

    penalty: float = 1.0
    damping: float = 0.01
    compensate: bool = True

    def __post_init__(self) -> None:
        check_range("newton: penalty", self.penalty, 1e-9, 1e9)
        check_range("newton: damping", self.damping, 1e-9, 1e9)


@dataclass(frozen=True)
class NumericalConfig(DataConfig):
    """Options of numerical pruning.

    Attributes:
        newton: options of score and compensation.
    """

    newton: NewtonConfig = field(default_factory=NewtonConfig)


class Numerical(DataMethod):
    """Units by Newton's real mask; then the kept ones' readers make good what they can."""

    Config: ClassVar[type[MethodConfig]] = NumericalConfig

    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """The resolved masks (units,) of all sites."""
        self.check_passes(passes)
        sites = unit_sites(gated)
        grams = gram_matrices(gated, sites, passes)
        scores = {
            site.name: self._scores(site, gram) for site, gram in zip(sites, grams, strict=True)
        }
        return self._aligned(gated, self._highest(gated, scores), scores)

    def _scores(self, site: ConsumedSite, gram: Tensor) -> Tensor:
        options = self.config.newton
        z = newton_mask(weight_of(site), gram, 1 - self.target, options.penalty, options.damping)
        return by_unit(site, z).mean(dim=1).cpu()

    def compensate(
        self, gated: GatedModel, masks: Mapping[str, Tensor], passes: Sequence[Pass]
    ) -> None:
        """Moves the weights that read the kept units."""
        if self.config.newton.compensate:
            compensate(gated, unit_sites(gated), masks, passes, self.config.newton.damping)


def newton_mask(
    weight: Tensor, gram: Tensor, share: float, penalty: float, damping: float
) -> Tensor:
    """The minimiser z (columns,) of the equation above.

    Args:
        weight: W (columns, outputs).
        gram: X^T X (columns, columns).
        share: r / columns.
        penalty: lambda, relative to the mean of the Hessian's diagonal.
        damping: added to the diagonal, likewise.
    """
    hessian = (weight @ weight.T) * gram
    scale = hessian.diagonal().mean().clamp_min(torch.finfo(hessian.dtype).tiny)
    hessian = hessian / scale
    hessian.diagonal().add_(damping)
    ones = torch.ones_like(hessian[:, :1])
    solved = torch.linalg.solve(hessian, ones)[:, 0]
    number = len(solved)
    missing = penalty * number * (1 - share) / (1 + penalty * solved.sum())
    return 1 - missing * solved
