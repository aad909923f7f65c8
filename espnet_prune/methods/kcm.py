"""Gradient-free pruning with unlabelled data: what represents others and is heard stays.

"Gradient-Free Structured Pruning with Unlabeled Data", Nova, Dai and Schuurmans 2023 (arXiv
2303.04185, its Kernelized Convex Masking). A unit's score is the product of two:

1. representative ranking, from weights alone: C begins as 1/n everywhere and is multiplied by
   sqrt(K / (K C)), element by element, until its sum hardly changes; K is the Gaussian kernel
   between the filters of the layer that reads the units, and a unit's rank its place on C's
   diagonal. It would end at 1 for a filter like no other, and at 1/m for each of m equal ones;
2. how loud the unit is on utterances whose labels nothing reads.

The update was read in another group's public implementation of the paper, not in its authors'.
Ours: the kernel's width, relative to the mean distance of the filters; a head as one filter, all of
its columns; the norm of a unit's output, divided by that of its site, as loudness, since outputs
of SiLU and attention have either sign; units are ranked by score for each parameter (or MAC), where
the paper tries every number of heads.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.config import check_range
from espnet_prune.methods.base import DataMethod, Pass, unit_sites
from espnet_prune.methods.fisher import unit_costs
from espnet_prune.methods.options import DataConfig, MethodConfig
from espnet_prune.sites.base import ConsumedSite
from espnet_prune.surgery import GatedModel
from espnet_prune.surgery.inputs import by_unit, inputs_of, weight_of

logger = logging.getLogger(__name__)
MOST_STEPS = 1000
TINY = 1e-12


@dataclass(frozen=True)
class KernelConfig:
    """Options of the representative ranking.

    Attributes:
        width: width of the Gaussian kernel, relative to the mean distance between a site's filters.
        convergence: relative change of C's sum at which it is done.
    """

    width: float = 1.0
    convergence: float = 0.01

    def __post_init__(self) -> None:
        check_range("kernel: width", self.width, 1e-3, 1e3)
        check_range("kernel: convergence", self.convergence, 1e-9, 0.5)


@dataclass(frozen=True)
class KcmConfig(DataConfig):
    """Options of gradient-free pruning.

    Attributes:
        kernel: options of the ranking by weights.
    """

    kernel: KernelConfig = field(default_factory=KernelConfig)


class Kcm(DataMethod):
    """Units by representativeness times loudness, for what they cost."""

    Config: ClassVar[type[MethodConfig]] = KcmConfig

    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """The resolved masks (units,) of all sites."""
        self.check_passes(passes)
        sites = gated.site_map.sites
        loud = loudness(gated, unit_sites(gated), passes)
        costs = unit_costs(gated.budget, list(loud))
        kernel = self.config.kernel
        scores = {
            name: representativeness(filters_of(sites[name]), kernel.width, kernel.convergence)
            * heard
            / costs[name]
            for name, heard in loud.items()
        }
        return self._aligned(gated, self._highest(gated, scores), scores)


def filters_of(site: ConsumedSite) -> Tensor:
    """(units, numbers): the columns that read each unit, float64."""
    return by_unit(site, weight_of(site)).flatten(1)


def representativeness(filters: Tensor, width: float, convergence: float) -> Tensor:
    """The diagonal of C once it has converged, float64 (units,), on the CPU.

    Args:
        filters: (units, numbers).
        width: width of the kernel, relative to the mean distance between two filters.
        convergence: relative change of C's sum at which it is done.
    """
    number = len(filters)
    if number == 1:
        return torch.ones(1, dtype=torch.float64)
    squares = torch.cdist(filters, filters).square().cpu()
    mean = squares.sqrt().sum() / (number * (number - 1))
    kernel = torch.exp(-squares / (width * mean).square().clamp_min(TINY))
    share = torch.full_like(kernel, 1 / number)
    for _ in range(MOST_STEPS):
        new = share * (kernel / (kernel @ share).clamp_min(TINY)).sqrt()
        change = float((new - share).sum().abs() / share.sum())
        share = new
        if change < convergence:
            return share.diagonal().clone()
    logger.warning("kcm: C still changes by %.2g after %d steps", change, MOST_STEPS)
    return share.diagonal().clone()


def loudness(
    gated: GatedModel, sites: Sequence[ConsumedSite], passes: Sequence[Pass]
) -> dict[str, Tensor]:
    """Norm of each unit's output over all passes, divided by its site's, float64 (units,), on CPU.

    Args:
        gated: the gated model, in evaluation mode.
        sites: those of units.
        passes: each runs it on an utterance; their losses aren't looked at.
    """
    power = {site.name: torch.zeros(site.units, dtype=torch.float64) for site in sites}
    for run in passes:
        for site, rows in zip(sites, inputs_of(gated, sites, {}, run), strict=True):
            squares = rows.double().square().sum(dim=0)
            power[site.name] += by_unit(site, squares).sum(dim=1).cpu()
    return {name: (p / p.sum().clamp_min(TINY)).sqrt() for name, p in power.items()}
