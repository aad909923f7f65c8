"""A pressure that grows until a size is reached, instead of a price on the size itself.

After ACIP (Genzel et al. 2025, arXiv 2502.01717; code merantix-momentum/acip): the L1 norm of the
scores has a weight that grows by a factor of 1.01 every fourth update. Ours: it begins relative to
what the task's loss pulls at the masks with in the first update; and it rests, and doesn't grow,
while the size is the wanted one or below, where the source ends its run.
"""

import torch
from torch import Tensor

from espnet_prune.budget.controllers import Controller, Movable


class GrowingPressure(Controller):
    """The weight of what pulls scores to 0.

    Args:
        start: the pull of the first updates on each score, in the mean of the masks' gradients.
        growth: its factor.
        every: updates from one growth to the next.
    """

    def __init__(self, start: float, growth: float, every: int) -> None:
        super().__init__()
        self.start = start
        self.growth = growth
        self.every = every
        self.target = 1.0
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))
        self.register_buffer("pressed", torch.zeros((), dtype=torch.long))
        self.register_buffer("reached", torch.zeros((), dtype=torch.bool))

    def forward(self, pull: Tensor, target: float) -> Tensor:
        """The loss term ().

        Args:
            pull: the scores' mean, without signs ().
            target: target of this update.
        """
        self.target = target
        loss = torch.where(self.reached, 0.0, self.weight).to(pull.dtype) * pull
        return loss + self.probe(pull) if self.training and pull.requires_grad else loss

    @torch.no_grad()
    def hold(self, gates: Movable) -> None:
        """Sees what the update made of the size, and lets the weight grow."""
        if not self.weight:
            self.weight.fill_(self.start * gates.felt() / self.scale)
        self.reached.fill_(gates.sparsity_moved(0.0) >= self.target)
        if not self.reached:
            self.pressed += 1
            if int(self.pressed) % self.every == 0:
                self.weight.mul_(self.growth)

    def values(self) -> dict[str, Tensor]:
        return {"pressure": torch.where(self.reached, 0.0, self.weight)}
