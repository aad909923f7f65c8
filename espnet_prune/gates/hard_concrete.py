"""Hard-concrete gates: L0 regularisation with a distribution that has mass at exactly 0 and 1.

Source: Louizos et al. 2018 (arXiv 1712.01312), equations 10-12, constants of their public code.
The deterministic mask follows FLOP (Wang et al. 2020): as many zeros as expected, the others keep
a soft value, which the cut folds into the next weight. No constants of P1 were found: these are
this project's choice for it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_prune.config import check_choice, check_range
from espnet_prune.gates.base import SHIFT_LIMIT, Gate

GAMMA = -0.1  # left end of the stretched interval (Louizos et al. 2018, section 4)
ZETA = 1.1  # right end, same source
BETA = 2 / 3  # temperature, same source
EPSILON = 1e-6  # keeps the uniform noise away from 0 and 1 (their code)
LOG_ALPHA_LIMIT = math.log(1e-2) * -1  # 4.605: their code clamps log_alpha to +-log(100)
ORDERS = ("none", "magnitude", "fisher")
FLOP_SHARPNESS = 0.8  # factor of log_alpha / beta in the deterministic mask (FLOP's code)


@dataclass(frozen=True)
class HardConcreteConfig:
    """Options of a hard-concrete gate.

    Attributes:
        initial_drop_rate: P(a gate's concrete variable is below one half) at the start, in
            (0, 1); 0.01 (CoFi's code) gives log_alpha 4.595 and P(z != 0) = 0.998.
        settle_fraction: share of the updates at the end in which log_alpha stays and the masks are
            the deterministic ones, so that the weights learn without noise (ours; the sources: 0).
        order: ``none``: all gates begin alike, as in the sources; ``magnitude`` or ``fisher``
            (ours): those units begin nearer to being closed that matter least by that score. Few
            updates are then spent on correcting an order instead of on finding one.
        spread: how much, in an order, the log_alpha of the first and the last unit differ at the
            start. A gate is undecided over about 6, and a rate of 0.1 moves one by 10 in 100
            updates, if all of them agree. The limits of log_alpha are as much wider.
    """

    initial_drop_rate: float = 0.01
    settle_fraction: float = 0.0
    order: str = "none"
    spread: float = 30.0

    def __post_init__(self) -> None:
        check_range("gate: initial_drop_rate", self.initial_drop_rate, 0.01, 0.99)
        check_range("gate: settle_fraction", self.settle_fraction, 0, 0.99)
        check_choice("gate: order", self.order, ORDERS)
        check_range("gate: spread", self.spread, 0, 1000)


class HardConcreteGate(Gate):
    """A gate with one learnable ``log_alpha`` a unit.

    Args:
        units: number of units.
        config: its options.
        binary: for a site of one unit whose soft value can't be folded into a weight (a whole
            block): the deterministic mask is then exactly 0 or 1.
        updates: number of updates of the whole run, for settling.

    Example:
        >>> gate = HardConcreteGate(4).eval()
        >>> bool((gate() > 0).all())
        True
    """

    def __init__(
        self,
        units: int,
        config: HardConcreteConfig | None = None,
        binary: bool = False,
        updates: int = 1,
    ) -> None:
        super().__init__(units)
        config = config or HardConcreteConfig()
        self.binary = binary
        self.spread = config.spread
        wider = config.spread if config.order != "none" else 0.0
        self.limit = LOG_ALPHA_LIMIT + wider
        self.shift_limit = SHIFT_LIMIT + wider
        rate = config.initial_drop_rate
        self.log_alpha = nn.Parameter(torch.full((units,), math.log((1 - rate) / rate)))
        self.settle_after = round((1 - config.settle_fraction) * updates)
        if config.settle_fraction:
            self.register_buffer("settled", torch.zeros((), dtype=torch.bool))
        self.project()

    @torch.no_grad()
    def begin(self, places: Tensor) -> None:
        """Starts the units in an order.

        Args:
            places: (units,), of each unit among all of the model, 0 for the one that goes first and
                1 for the one that goes last.
        """
        lowest = self.log_alpha.max()
        self.log_alpha.copy_(lowest + self.spread * places.to(self.log_alpha))
        self.project()

    @property
    def is_settled(self) -> bool:
        """Whether masks are no longer drawn and log_alpha stays."""
        return bool(getattr(self, "settled", False))

    def advance(self, updates: int) -> None:
        """Settles when it is time."""
        if updates >= self.settle_after and hasattr(self, "settled"):
            self.settled.fill_(True)

    def sample(self, noise: Tensor) -> Tensor:
        """Equation 10-11: a stretched and rectified binary concrete variable, (units,)."""
        if self.is_settled:
            return self.deterministic()
        noise = noise.to(self.log_alpha).clamp(EPSILON, 1 - EPSILON)
        logit = torch.log(noise) - torch.log1p(-noise)
        concrete = torch.sigmoid((logit + self.log_alpha) / BETA)
        return (concrete * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)

    def probabilities(self) -> Tensor:
        """Equation 12: P(z != 0) = sigmoid(log_alpha - beta log(-gamma / zeta)), (units,)."""
        return _open(self.log_alpha.detach() if self.is_settled else self.log_alpha)

    @torch.no_grad()
    def moved(self, amount: float) -> Tensor:
        """The same as if ``amount`` were added to every log_alpha, within its limits."""
        if self.is_settled:
            return self.probabilities()
        return _open((self.log_alpha + amount).clamp(-self.limit, self.limit))

    @torch.no_grad()
    def move(self, amount: float) -> None:
        """Adds ``amount`` to every log_alpha, within its limits; settled ones stay."""
        if not self.is_settled:
            self.log_alpha.add_(amount)
            self.project()

    @torch.no_grad()
    def deterministic(self, shift: float = 0.0) -> Tensor:
        """FLOP's mask: the n - sum P smallest become 0, the others keep their soft value.

        A shift below 0 closes more units and leaves the values of the others as they were learned;
        one above 0 lifts the values too, since a unit that it opens would have one near 0 (ours).
        """
        scores = self.log_alpha + shift
        expected = _open(scores).double().sum().item()
        zeros = min(self.units, max(0, round(self.units - expected)))
        soft = torch.sigmoid(FLOP_SHARPNESS * (self.log_alpha + max(shift, 0.0)) / BETA)
        mask = torch.ones_like(soft) if self.binary else soft
        order = torch.argsort(self.log_alpha, stable=True)
        mask[order[:zeros]] = 0.0
        return mask

    @torch.no_grad()
    def project(self) -> None:
        """Clamps log_alpha, so that a gate that closed can open again."""
        self.log_alpha.clamp_(-self.limit, self.limit)


def _open(log_alpha: Tensor) -> Tensor:
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))
