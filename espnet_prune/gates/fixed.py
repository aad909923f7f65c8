"""A gate that learns nothing: its mask is given (magnitude, random and uniform baselines)."""

import torch
from torch import Tensor

from espnet_prune.gates.base import Gate


class FixedGate(Gate):
    """Holds a mask that never changes; all ones until ``set`` is called.

    Args:
        units: number of units.
    """

    def __init__(self, units: int) -> None:
        super().__init__(units)
        self.register_buffer("mask", torch.ones(units))

    def set(self, mask: Tensor) -> None:
        """Takes over ``mask``, shape (units,)."""
        self.mask.copy_(mask.to(self.mask))

    def sample(self, noise: Tensor) -> Tensor:
        """The mask itself; there is nothing random in it."""
        return self.mask

    def deterministic(self, shift: float = 0.0) -> Tensor:
        """The mask itself."""
        return self.mask.clone()

    def probabilities(self) -> Tensor:
        """1 for a kept unit, 0 for the others."""
        return (self.mask != 0).to(self.mask)
