"""Single weights by the optimal brain surgeon, with no training: choice, shares and new weights.

``surgery.surgeon`` takes the weights out of one layer after the other and solves those that stay
anew; what is published of it stands there. How much each matrix loses is ours: a weight's cost is
that of the surgeon for the layer's output, w^2 / [H^-1]_jj, times the mean square of the loss's
gradient at that output. That is the optimal brain surgeon with the Fisher information as a product
of a factor of inputs and a diagonal one of outputs (the factors of K-FAC, Martens and Grosse 2015,
arXiv 1503.05671). All matrices are ranked together by it.

As in P2, sparsity is the share of the weights of attention and feed-forward matrices that is 0.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.config import check_range
from espnet_prune.methods.base import DataMethod, Pass, WeightMethod
from espnet_prune.methods.gradients import check_finite
from espnet_prune.methods.options import CalibrationConfig, MethodConfig
from espnet_prune.sites import WEIGHT
from espnet_prune.sites.weights import WeightSite
from espnet_prune.surgery import GatedModel
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.inputs import rows_of
from espnet_prune.surgery.surgeon import remove_weights

COST_DAMPING = 0.01  # of what the layers hear, where the shares are found


@dataclass(frozen=True)
class SurgeonConfig:
    """Options of choice and solution.

    Attributes:
        damping: pulls the weights to what they are, relative to the mean square of what a layer
            hears; left out, every fifth utterance is held out, and chooses it for each layer.
        most: share of a matrix that may go at most; no more than the target means the same share
            of every matrix.
    """

    damping: float | None = None
    most: float = 0.95

    def __post_init__(self) -> None:
        if self.damping is not None:
            check_range("surgeon: damping", self.damping, 1e-9, 1e9)
        check_range("surgeon: most", self.most, 0, 1)


@dataclass(frozen=True)
class ObsWeightsConfig(MethodConfig):
    """Options of the optimal brain surgeon on single weights.

    Attributes:
        calibration: what it sees.
        surgeon: options of choice and solution.
    """

    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    surgeon: SurgeonConfig = field(default_factory=SurgeonConfig)


class ObsWeights(WeightMethod, DataMethod):
    """Weights whose loss the others can make good go."""

    Config: ClassVar[type[MethodConfig]] = ObsWeightsConfig

    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """The masks (weights,) of all sites; the kept weights are solved anew in place."""
        self.check_passes(passes)
        options, sites = self.config.surgeon, gated.site_map.of_kinds((WEIGHT,))
        hessians, squares = moments(gated, sites, passes, options.damping or COST_DAMPING)
        costs = {s.name: weight_costs(s, hessians[s.name], squares[s.name]) for s in sites}
        shares = shares_of(costs, self.target, max(options.most, self.target))
        return remove_weights(gated, sites, shares, passes, options.damping)


def moments(
    gated: GatedModel, sites: Sequence[WeightSite], passes: Sequence[Pass], damping: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What layers of the dense model hear, and how their outputs act on the loss.

    Args:
        gated: the gated model, in evaluation mode.
        sites: those of single weights.
        passes: each runs the gated model on one utterance and returns its loss ().
        damping: added to the diagonal, relative to its mean.

    Returns:
        X^T X / rows + damping (inputs, inputs), and mean squares (outputs,) of the gradient with
        respect to the layer's output, by site.

    Raises:
        TrainingError: a gradient that is not finite.
    """
    own: dict[str, Tensor | float] = {site.name: 0.0 for site in sites}
    squares: dict[str, Tensor | float] = {site.name: 0.0 for site in sites}
    rows: dict[str, int] = {site.name: 0 for site in sites}

    def hook_of(name: str):
        def feel(gradient: Tensor) -> None:
            squares[name] = squares[name] + gradient.flatten(0, -2).double().square().sum(dim=0)

        def hook(layer: torch.nn.Module, inputs: tuple, output: Tensor) -> None:
            heard = rows_of(layer, inputs[0].detach()).double()
            own[name], rows[name] = own[name] + heard.T @ heard, rows[name] + len(heard)
            output.register_hook(feel)

        return hook

    with holding(gated, {}), ExitStack() as stack:
        for site in sites:
            handle = site.layer.register_forward_hook(hook_of(site.name))
            stack.callback(handle.remove)
        for run in passes:
            torch.autograd.grad(run(), [site.layer.weight for site in sites])
    check_finite(squares)
    for name in own:
        own[name] = own[name] / rows[name]
        own[name].diagonal().add_(damping * own[name].diagonal().mean().clamp_min(1e-12))
        squares[name] = squares[name] / rows[name]
    return own, squares


@torch.no_grad()
def weight_costs(site: WeightSite, hessian: Tensor, squares: Tensor) -> Tensor:
    """What the loss rises by without each weight (weights,), up to one factor of all sites.

    Args:
        site: of a layer of weight (outputs, inputs).
        hessian: (inputs, inputs), of ``moments``.
        squares: (outputs,), of ``moments``.
    """
    inverse = torch.linalg.inv(hessian).diagonal()
    return (site.layer.weight.double().square() / inverse * squares[:, None]).flatten()


def shares_of(costs: Mapping[str, Tensor], target: float, most: float) -> dict[str, float]:
    """Which share of its weights each site loses, where all are ranked together.

    Args:
        costs: (weights,) by site.
        target: share of all weights.
        most: share of a site's weights, not below the target.
    """
    ranked = {name: values.sort().values for name, values in costs.items()}
    free = {name: values[: round(most * len(values))] for name, values in ranked.items()}
    number = round(target * sum(len(values) for values in costs.values()))
    dearest = torch.cat(list(free.values())).sort().values[max(number, 1) - 1] if number else -1.0
    return {name: int((free[name] <= dearest).sum()) / len(ranked[name]) for name in costs}
