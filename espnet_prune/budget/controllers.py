"""Controllers: from (sparsity now, target now) to a loss term that drives one to the other.

Multipliers ascend while everything else descends: their parameter group has ``maximize=True``
and their own learning rate, never a negative one.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_prune.config import check_choice


class Controller(nn.Module, ABC):
    """Turns the distance to the target into a loss term; its parameters are multipliers."""

    @abstractmethod
    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        """The loss term (), from the expected ``sparsity`` () and the ``target`` of this update."""

    def project(self) -> None:
        """Puts multipliers back into their allowed range; called after every update."""

    @abstractmethod
    def values(self) -> dict[str, Tensor]:
        """The multipliers by name, for the log."""


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


CONTROLLERS = ("lagrangian", "constraint")


@dataclass(frozen=True)
class ControllerConfig:
    """Which controller, and how fast its multipliers ascend.

    Attributes:
        kind: ``lagrangian`` or ``constraint``.
        learning_rate: of the multipliers (CoFi's code: the same as the masks').
        restart: of ``constraint``; the Lagrangian has none.
    """

    kind: str = "lagrangian"
    learning_rate: float = 0.05
    restart: bool = True

    def __post_init__(self) -> None:
        check_choice("controller: kind", self.kind, CONTROLLERS)

    def build(self) -> Controller:
        """A fresh controller, multipliers at 0."""
        return Constraint(self.restart) if self.kind == "constraint" else Lagrangian()
