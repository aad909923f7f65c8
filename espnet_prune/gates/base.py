"""What a gate is: it makes one site's mask from its own parameters and knows no model."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

SHIFT_LIMIT = 12.0  # scores lie within about +-5


class Gate(nn.Module, ABC):
    """Makes the mask of one site, a tensor of shape (units,) with values >= 0.

    Args:
        units: number of units that the mask covers.

    Attributes:
        shift_limit: the shift of the fixed mask that opens all units; below 0 it closes them.
    """

    shift_limit: float = SHIFT_LIMIT

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units

    @property
    def noise_units(self) -> int:
        """How many uniform numbers ``sample`` reads; 0 for a gate that draws nothing."""
        return self.units

    @abstractmethod
    def sample(self, noise: Tensor) -> Tensor:
        """A differentiable random mask (units,) from uniform ``noise`` (noise_units,) in (0, 1)."""

    @abstractmethod
    def deterministic(self, shift: float = 0.0) -> Tensor:
        """The fixed mask (units,) of evaluation; zeros are exact.

        Args:
            shift: added to every score before the mask is made; above 0 keeps more units.
        """

    @abstractmethod
    def probabilities(self) -> Tensor:
        """P(mask != 0) of each unit, shape (units,), differentiable."""

    def moved(self, amount: float) -> Tensor:
        """P(mask != 0), shape (units,), as if the gate were moved; here nothing moves."""
        return self.probabilities()

    def move(self, amount: float) -> None:
        """Opens all units alike by ``amount``, or closes them below 0; here nothing moves."""

    def project(self) -> None:
        """Puts the parameters back into their allowed range; called after every update."""

    def advance(self, updates: int) -> None:
        """Told how many updates were made, after every one; for temperatures that fall."""

    def forward(self, noise: Tensor | None = None) -> Tensor:
        """A sampled mask in training (needs ``noise``), the fixed one at evaluation."""
        if self.training:
            if noise is None:
                noise = torch.rand(self.noise_units)
            return self.sample(noise)
        return self.deterministic()
