"""Comb, prune, distill: all that belongs to a unit counts together, by second order, in rounds.

"Comb, Prune, Distill: Towards Unified Pruning for Vision Model Compression", Schmitt et al. 2024
(arXiv 2408.03046). Published: combing resolves which channels of different layers depend on each
other; the pruning adapts to importance scores that come of the Hessian; distillation keeps what was
learned. The dependencies are those of the sites here, and finetuning distils. Ours, since the code
could not be read: the score is the squared sum of gradient times weight over all that makes a unit
and reads it, averaged over calibration utterances, which is its empirical Fisher information (the
usual Hessian-aware saliency); units go by score for each parameter (or MAC); and the size falls in
equal ``rounds``, after each of which the scores are measured anew on what is left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.budget import keep_highest
from espnet_prune.config import check_range
from espnet_prune.methods.base import DataMethod, Pass, unit_sites
from espnet_prune.methods.fisher import unit_costs
from espnet_prune.methods.gradients import check_finite
from espnet_prune.methods.options import DataConfig, MethodConfig
from espnet_prune.surgery import GatedModel
from espnet_prune.surgery.cut import twin_of
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.inputs import by_unit, weight_of


@dataclass(frozen=True)
class CpdConfig(DataConfig):
    """Options of the pruning in rounds.

    Attributes:
        rounds: in which the size falls to the target.
    """

    rounds: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("rounds", self.rounds, 1, 1000)


class Cpd(DataMethod):
    """Units by the saliency of everything that belongs to them, measured anew as they go."""

    Config: ClassVar[type[MethodConfig]] = CpdConfig

    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """The resolved masks (units,) of all sites."""
        self.check_passes(passes)
        masks: Mapping[str, Tensor] = {}
        for turn in range(1, self.config.rounds + 1):
            scores = coupled_scores(gated, masks, passes)
            target = self.target * turn / self.config.rounds
            masks = keep_highest(scores, gated.budget, target, self.config.budget.tolerance)
        return self._aligned(gated, masks, scores)


def coupled_scores(
    gated: GatedModel, masks: Mapping[str, Tensor], passes: Sequence[Pass]
) -> dict[str, Tensor]:
    """Saliency of each unit for what it costs, float64 (units,) by site; below 0 for those gone.

    Args:
        gated: the gated model, in evaluation mode.
        masks: what is left; none for all.
        passes: each runs it on an utterance and returns its loss ().

    Raises:
        TrainingError: a gradient that is not finite.
    """
    products = twin_of(gated)  # has weight times gradient where the model has weights
    sums = {site.name: torch.zeros(site.units, dtype=torch.float64) for site in unit_sites(gated)}
    device = next(gated.model.parameters()).device
    with holding(gated, {name: mask.to(device) for name, mask in masks.items()}):
        for run in passes:
            _multiply(gated, products, run())
            for site in unit_sites(products):
                parts = [*site.made_by(), by_unit(site, weight_of(site))]
                total = sum(part.double().reshape(site.units, -1).sum(dim=1) for part in parts)
                sums[site.name] += total.square().cpu()
    check_finite(sums)
    costs = unit_costs(gated.budget, list(sums))
    scores = {}
    for name, total in sums.items():
        gone = masks[name].cpu() == 0 if name in masks else torch.zeros(len(total), dtype=bool)
        scores[name] = (total / costs[name]).masked_fill(gone, -1.0)
    return scores


def _multiply(gated: GatedModel, products: GatedModel, loss: Tensor) -> None:
    """Writes weight times gradient into the other model's weights."""
    weights = [p for p in gated.model.parameters() if p.requires_grad]
    places = [p for p in products.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    with torch.no_grad():
        for weight, place, gradient in zip(weights, places, found, strict=True):
            place.copy_(torch.zeros_like(weight) if gradient is None else weight * gradient)
