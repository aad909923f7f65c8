"""Controllers: from (sparsity now, target now) to a loss term that drives one to the other.

Multipliers ascend while everything else descends: their parameter group has ``maximize=True``
and their own learning rate, never a negative one.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from espnet_prune.config import check_choice, check_range
from espnet_prune.errors import ConfigError

PRICE_GAIN = 0.1  # how much the logarithm of the price changes in an update, at most
TOLERANCE = 1e-4  # of the amount; the sparsity changes by a quarter of it, at most
SMALLEST_REACH, MOST_MOVED = 0.01, 100.0  # log_alpha has limits well within
MULTIPLIERS_RATE = 0.05
# code of Xu et al. 2025 (hanyxu/SASPG-pruning): the width for targets up to a half, and above
BAND_WIDTHS, BAND_LIMIT = (0.02, 0.002), 0.5
BAND_STRENGTH_WEIGHTS = 2e-5  # same code: lambda a weight, single weights pruned
BAND_STRENGTH_UNITS = 4e-5  # same code: lambda a weight, units pruned


class Controller(nn.Module, ABC):
    """Turns the distance to the target into a loss term; its parameters are multipliers.

    Attributes:
        prunable: size of all that the gates can remove; the gated model sets it. Only a
            controller whose strength is per parameter needs it.
    """

    prunable: int = 1
    scale: float = 1.0  # of the loss, where gradients are scaled against underflow

    @abstractmethod
    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        """The loss term (), from the expected ``sparsity`` () and the ``target`` of this update."""

    def project(self) -> None:
        """Puts multipliers back into their allowed range; called after every update."""

    def hold(self, gates: "Movable") -> None:
        """Told of the gates after every update, which it may move; here it does nothing."""

    @abstractmethod
    def values(self) -> dict[str, Tensor]:
        """The multipliers by name, for the log."""

    def probe(self, like: Tensor) -> Tensor:
        """A zero () to be added to the loss, by whose gradient the controller sees its scale."""
        zero = torch.zeros((), dtype=like.dtype, device=like.device, requires_grad=True)
        zero.register_hook(self._see_scale)
        return zero

    def _see_scale(self, gradient: Tensor) -> None:
        self.scale = float(gradient)


class Movable(Protocol):
    """All gates of a model, as a controller that moves them sees them."""

    def sparsity_moved(self, amount: float) -> float:
        """The expected sparsity if all gates were moved alike."""

    def move(self, amount: float) -> None:
        """Moves all gates alike."""

    def mean_step(self) -> float:
        """How far the optimiser moved the gates' parameters in this update, on average."""

    def felt(self) -> float:
        """Sum of what the loss's gradients of all masks were in this update, without signs."""


class Exact(Controller):
    """Holds the expected sparsity at the target of every update (ours).

    After each update all gates move alike by what the optimiser missed the target by: a gradient
    step and a retraction onto the constraint. So the sparsity is never past its target, however few
    the updates, and whatever the scale of the task's loss. What is to be found is which gates are
    open, and for that the loss has a price for each share of the size, as a Lagrangian has:
    price (t - s). It begins at what the masks' gradients say that the whole size is worth; it rises
    by a factor where the gates had to be moved shut, and falls where they had to be moved open,
    until the optimiser's own steps keep the size.

    Attributes:
        log_price: logarithm of the price; NaN before the first update.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_price", torch.full((), math.nan, dtype=torch.float64))
        self.target = 0.0

    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        self.target = target
        price = self.log_price.exp().nan_to_num(nan=0.0)
        if not self.training or not sparsity.requires_grad:
            return price * (target - sparsity)
        return price * (target - sparsity) + self.probe(sparsity)

    @torch.no_grad()
    def hold(self, gates: Movable) -> None:
        """Moves the gates to the target of the last loss, and adapts the price."""
        amount = self._amount(gates)
        if torch.isnan(self.log_price):
            worth = gates.felt() / self.scale
            if worth > 0:
                self.log_price.fill_(math.log(worth))
        elif gates.mean_step() > 0:
            missed = min(1.0, max(-1.0, amount / gates.mean_step()))
            self.log_price.sub_(PRICE_GAIN * missed)
        gates.move(amount)

    def _amount(self, gates: Movable) -> float:
        """What all gates have to be moved by; as far as they go where that isn't enough."""
        from scipy.optimize import brentq  # a third of a second, for this controller alone

        def missing(amount: float) -> float:
            return gates.sparsity_moved(amount) - self.target

        reach = max(gates.mean_step(), SMALLEST_REACH)
        while missing(-reach) < 0 or missing(reach) > 0:
            if reach >= MOST_MOVED:
                return reach if missing(reach) > 0 else -reach
            reach *= 4
        return brentq(missing, -reach, reach, xtol=TOLERANCE, rtol=TOLERANCE)

    def values(self) -> dict[str, Tensor]:
        return {"price": self.log_price.exp()}


class Lagrangian(Controller):
    """l1 (s - t) + l2 (s - t)^2 with both multipliers by ascent from 0 (CoFi; Wang et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.lambda_linear = nn.Parameter(torch.zeros(()))
        self.lambda_quadratic = nn.Parameter(torch.zeros(()))

    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        gap = sparsity - target
        return self.lambda_linear * gap + self.lambda_quadratic * gap**2

    def values(self) -> dict[str, Tensor]:
        return {
            "lambda_linear": self.lambda_linear.detach(),
            "lambda_quadratic": self.lambda_quadratic.detach(),
        }


class Constraint(Controller):
    """lambda (t - s) for the constraint s >= t, lambda >= 0 by projection.

    Source: controlled sparsity, arXiv 2208.04425: no penalty to tune; with restarts, the
    multiplier is set back to 0 once the constraint is met, so that it doesn't go on pressing.
    Restarts suit short trainings, whose gates hardly reopen by themselves; without them it settles
    at the solution, after some swings.

    Args:
        restart: whether to restart.
    """

    def __init__(self, restart: bool = True) -> None:
        super().__init__()
        self.restart = restart
        self.lambda_linear = nn.Parameter(torch.zeros(()))
        self.register_buffer("met", torch.zeros((), dtype=torch.bool))

    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        gap = target - sparsity
        if self.training:
            self.met.copy_(gap.detach() <= 0)
        return self.lambda_linear * gap

    @torch.no_grad()
    def project(self) -> None:
        self.lambda_linear.clamp_(min=0)
        if self.restart:
            self.lambda_linear.mul_(~self.met)

    def values(self) -> dict[str, Tensor]:
        return {"lambda_linear": self.lambda_linear.detach()}


class Band(Controller):
    """+ lambda size above the band, - lambda size below it, nothing within: three branches.

    Source: the public code of Xu et al., Interspeech 2025 (arXiv 2505.22608). The size is the
    number of kept parameters, so lambda is a loss for each of them; nothing is learned. The band
    lies below the target. Where the task's loss pushes outwards, the sparsity stays at its lower
    edge, the width off; where it pushes harder than lambda, the sparsity stays further off.

    Args:
        strength: lambda, for each parameter.
        width: width of the band, in sparsity; None for the published ones, by the target.
        growth: factor on lambda for every update that finds the model too large, for a task that
            pushes harder (ours; the source's lambda is constant: 1). Back to a larger model the
            push is always the first one.
    """

    def __init__(self, strength: float, width: float | None = None, growth: float = 1.0) -> None:
        super().__init__()
        self.strength = strength
        self.width = width
        self.growth = growth
        if growth > 1:
            self.register_buffer("grown", torch.ones(()))
            self.register_buffer("too_large", torch.zeros((), dtype=torch.bool))

    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        size = (1 - sparsity) * self.prunable
        side = self.direction(float(sparsity.detach()), target)
        if self.growth > 1 and self.training:
            self.too_large.fill_(side > 0)
        return self.push(side) * side * size

    def push(self, side: int) -> float:
        """lambda now, on a side of the band."""
        return self.strength * float(self.grown) if self.growth > 1 and side > 0 else self.strength

    @torch.no_grad()
    def project(self) -> None:
        """Lets lambda grow while the model is too large."""
        if self.growth > 1 and self.too_large:
            self.grown.mul_(self.growth)

    def direction(self, sparsity: float, target: float) -> int:
        """1 where the model is too large, -1 where it is too small, 0 within the band."""
        width = BAND_WIDTHS[target > BAND_LIMIT] if self.width is None else self.width
        if target - width <= sparsity <= target:
            return 0
        return 1 if sparsity < target else -1

    def values(self) -> dict[str, Tensor]:
        return {"band_strength": self.strength * self.grown} if self.growth > 1 else {}


# Options that one kind alone reads.
OF_ONE_KIND = {
    "restart": "constraint",
    "band_strength": "band",
    "band_width": "band",
    "band_growth": "band",
}
CONTROLLERS = ("exact", "lagrangian", "constraint", "band")


@dataclass(frozen=True)
class ControllerConfig:
    """Which controller, and how fast its multipliers ascend.

    Attributes:
        kind: ``exact`` (ours), ``lagrangian`` (CoFi), ``constraint`` or ``band``.
        learning_rate: learning rate of the multipliers of ``lagrangian`` and ``constraint``, which
            alone have any; by default 0.05 (CoFi's code: the same as the masks').
        restart: whether ``constraint`` restarts; no other controller may be without.
        band_strength: lambda of ``band`` for each parameter; by default the published one, 2e-5
            where single weights are pruned and 4e-5 where units are.
        band_width: width of ``band``, below the target; None for the published ones, 0.02 for
            targets up to 0.5 and 0.002 above.
        band_growth: factor on lambda of ``band`` for every update that finds the model too large
            (ours; published: constant, 1).
    """

    kind: str = "exact"
    learning_rate: float | None = None
    restart: bool = True
    band_strength: float | None = None
    band_width: float | None = None
    band_growth: float = 1.0

    def __post_init__(self) -> None:
        check_choice("controller: kind", self.kind, CONTROLLERS)
        if self.band_width is not None:
            check_range("controller: band_width", self.band_width, 0, 1)
        check_range("controller: band_growth", self.band_growth, 1, 10)
        if self.learning_rate is not None:
            check_range("controller: learning_rate", self.learning_rate, 1e-8, 1e4)
            if self.kind in ("exact", "band"):
                raise ConfigError(
                    f"controller: learning_rate: {self.learning_rate}: {self.kind} has no "
                    "multipliers; leave it out, or choose lagrangian or constraint"
                )
        for name, kind in OF_ONE_KIND.items():
            value = getattr(self, name)
            if value != getattr(type(self), name) and self.kind != kind:
                raise ConfigError(
                    f"controller: {name}: {value}: of kind {kind} alone; {self.kind} doesn't read "
                    "it, leave it out"
                )
        if self.band_strength is not None:
            check_range("controller: band_strength", self.band_strength, 1e-12, 1e12)

    @property
    def multipliers_rate(self) -> float:
        """The learning rate of the multipliers."""
        return MULTIPLIERS_RATE if self.learning_rate is None else self.learning_rate

    def check_measure(self, where: str, measure: str) -> None:
        """ConfigError for the band with another measure than parameters, its lambda's unit."""
        if self.kind == "band" and measure != "parameters":
            raise ConfigError(
                f"{where}: kind: the band counts parameters, not {measure}; choose lagrangian "
                "there, or measure parameters"
            )

    def build(self, band_strength: float = BAND_STRENGTH_UNITS) -> Controller:
        """A fresh controller, multipliers at 0.

        Args:
            band_strength: strength of a band whose configuration names none.
        """
        if self.kind == "exact":
            return Exact()
        if self.kind == "band":
            return Band(self.band_strength or band_strength, self.band_width, self.band_growth)
        return Constraint(self.restart) if self.kind == "constraint" else Lagrangian()
