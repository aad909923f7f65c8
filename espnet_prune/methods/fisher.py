"""Fisher mask search: units chosen after training, from gradients of masks that are all 1.

"A Fast Post-Training Pruning Framework for Transformers", Kwon et al. 2022 (arXiv 2204.09656; code
WoosukKwon/retraining-free-pruning). With g_n = dL_n/dm the gradient of utterance n's loss with
respect to the masks, removing a set R of units raises the loss by about the mean over n of
(sum of g_n over R)^2 / 2, the empirical Fisher information. Three steps:

1. search: the diagonal alone, sum of g^2 for each unit; units are kept by their Fisher information
   for each parameter (or MAC) that they cost. The authors try every number of heads and fill up
   with feed-forward units, which is the same up to one unit; with four kinds of units, ours.
2. rearrange: within a site, whose number of units is now fixed, the products of different units
   count too; units join the removed set one by one, and each time the unit whose return leaves
   the least Fisher information returns.
3. rescale: factors of the kept units, by least squares, bring a layer's output near the dense
   model's. Ours: block by block, the branch's own output without the residual sum, one
   system a site, and not in the front-end (``surgery.rescale``).

Retraining-free there; here finetuned with as many updates as every other system.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.budget import Budget
from espnet_prune.config import check_range
from espnet_prune.methods.base import DataMethod, Pass
from espnet_prune.methods.gradients import check_finite
from espnet_prune.methods.options import DataConfig, MethodConfig
from espnet_prune.sites import UNIT_KINDS
from espnet_prune.surgery import GatedModel
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.rescale import rescale


@dataclass(frozen=True)
class FisherConfig:
    """What follows the search.

    Attributes:
        rearrange: whether units of a site change places, once their number is fixed.
        rescale: whether the kept units are rescaled by least squares.
        rescale_utterances: number of utterances of the calibration set, for the rescaling, which
            runs the model twice for every block: ours.
        damping: pulls the factors to 1, relative to the mean of the normal equations' diagonal
            (their code damps its solver by 1, not scaled: ours).
    """

    rearrange: bool = True
    rescale: bool = True
    rescale_utterances: int = 32
    damping: float = 0.1

    def __post_init__(self) -> None:
        check_range("fisher: rescale_utterances", self.rescale_utterances, 1, 1e6)
        check_range("fisher: damping", self.damping, 1e-9, 1e9)


@dataclass(frozen=True)
class FisherMaskConfig(DataConfig):
    """Options of the Fisher mask search.

    Attributes:
        fisher: what follows the search.
    """

    fisher: FisherConfig = field(default_factory=FisherConfig)


class FisherMask(DataMethod):
    """Search, rearrangement and rescaling on calibration utterances."""

    Config: ClassVar[type[MethodConfig]] = FisherMaskConfig

    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """The resolved masks (units,) of all sites; kept units have their factors as values."""
        self.check_passes(passes)
        options = self.config.fisher
        gradients = mask_gradients(gated, passes)
        scores = fisher_scores(gated, gradients)
        masks = self._highest(gated, scores)
        masks = dict(self._aligned(gated, masks, scores))  # before kept units get their factors
        if options.rearrange:
            masks.update({n: rearranged(masks[n], g) for n, g in gradients.items()})
        if options.rescale:
            few = passes[: options.rescale_utterances]
            masks = rescale(gated, masks, few, options.damping)
        return masks


def fisher_scores(gated: GatedModel, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fisher information (units,) of each unit for what it costs.

    Args:
        gated: the gated model.
        gradients: (units, utterances) by site.
    """
    costs = unit_costs(gated.budget, list(gradients))
    return {name: g.square().sum(dim=1) / costs[name] for name, g in gradients.items()}


def mask_gradients(gated: GatedModel, passes: Sequence[Pass]) -> dict[str, Tensor]:
    """Gradients of the losses with respect to masks of ones: (units, utterances) for each site.

    Args:
        gated: the gated model, in evaluation mode.
        passes: each runs it and returns a loss ().

    Raises:
        TrainingError: a gradient that is not finite.
    """
    sites, device = gated.site_map.sites, next(gated.model.parameters()).device
    names = [name for name in gated.gate_names() if sites[name].kind in UNIT_KINDS]
    masks = {n: torch.ones(sites[n].units, device=device, requires_grad=True) for n in names}
    columns: dict[str, list[Tensor]] = {name: [] for name in names}
    with holding(gated, masks):
        for run in passes:
            found = torch.autograd.grad(run(), list(masks.values()))
            for name, gradient in zip(names, found, strict=True):
                columns[name].append(gradient.detach().cpu())
    gradients = {name: torch.stack(values, dim=1).double() for name, values in columns.items()}
    check_finite(gradients)
    return gradients


def unit_costs(budget: Budget, names: Sequence[str]) -> dict[str, int]:
    """What one unit of each site costs while all others are there, in the budget's measure."""
    everything = {name: site.units for name, site in budget.structure.sites.items()}
    whole = budget.count(everything)
    return {n: whole - budget.count({**everything, n: everything[n] - 1}) for n in names}


def rearranged(mask: Tensor, gradients: Tensor) -> Tensor:
    """As many units as before, chosen with the products of different units' gradients.

    Args:
        mask: (units,), 0 and 1.
        gradients: (units, utterances).

    Returns:
        The new mask (units,); the old one where that removes no more Fisher information.
    """
    removed = int((mask == 0).sum())
    if removed in (0, len(mask)):
        return mask
    order = torch.argsort(gradients.square().sum(dim=1), stable=True)
    gone = torch.zeros(len(mask), dtype=torch.bool)
    gone[order[:removed]] = True
    total = gradients[gone].sum(dim=0)
    for unit in order[removed:].tolist():
        gone[unit] = True
        total = total + gradients[unit]
        left = (total - gradients).square().sum(dim=1).masked_fill(~gone, torch.inf)
        back = int(left.argmin())
        gone[back] = False
        total = total - gradients[back]
    before = gradients[mask == 0].sum(dim=0).square().sum()
    return mask if before <= total.square().sum() else (~gone).to(mask)
