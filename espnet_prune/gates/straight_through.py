"""Gates that are open while their score is above 0: hard forwards, the identity backwards.

"ACIP: Adaptive Compression by Iterative Pruning", Genzel et al. 2025 (arXiv 2502.01717; code
merantix-momentum/acip), whose masks of singular values are such. Nothing is drawn. The scores say
more than the mask: which unit would go next.
"""

import torch
from torch import Tensor, nn

from espnet_prune.gates.base import Gate


class StraightThroughGate(Gate):
    """One score a unit.

    Args:
        units: number of units.
    """

    def __init__(self, units: int) -> None:
        super().__init__(units)
        self.scores = nn.Parameter(torch.ones(units))

    @property
    def noise_units(self) -> int:
        return 0

    def sample(self, noise: Tensor) -> Tensor:
        return self._open() + (self.scores - self.scores.detach())  # exactly 0 or 1

    def deterministic(self, shift: float = 0.0) -> Tensor:
        return self._open(shift)

    def probabilities(self) -> Tensor:
        """0 or 1, with a gradient of 1."""
        return self.sample(self.scores)

    def _open(self, shift: float = 0.0) -> Tensor:
        return (self.scores.detach() + shift > 0).to(self.scores.dtype)
