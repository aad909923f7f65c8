"""Gates that drop units with a probability that is learned for each.

"Adaptive Dropout for Pruning Conformers", Kamo et al. 2024 (arXiv 2412.04836): every unit has its
own retention probability, estimated by back-propagation with the Gumbel-softmax technique; after
the training units of low retention go. Ours: the mask is 0 or 1 forwards and soft backwards, the
temperature is constant, and kept units are not scaled by 1 / p.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_prune.config import check_range
from espnet_prune.gates.base import Gate

EPSILON = 1e-6
LIMIT = 8.0  # of the logit, so that a unit that was dropped can come back


@dataclass(frozen=True)
class RetentionConfig:
    """Where units begin, and how soft the gradient is.

    Attributes:
        start: retention at first.
        temperature: temperature of the Gumbel-softmax.
    """

    start: float = 0.95
    temperature: float = 0.5

    def __post_init__(self) -> None:
        check_range("retention: start", self.start, 0.01, 0.999)
        check_range("retention: temperature", self.temperature, 0.01, 100)


class RetentionGate(Gate):
    """A retention probability a unit.

    Args:
        units: number of units.
        config: its options.
    """

    def __init__(self, units: int, config: RetentionConfig | None = None) -> None:
        super().__init__(units)
        config = config or RetentionConfig()
        self.temperature = config.temperature
        self.logits = nn.Parameter(
            torch.full((units,), math.log(config.start / (1 - config.start)))
        )

    def sample(self, noise: Tensor) -> Tensor:
        """1 with the retention probability, else 0; the gradient is that of the soft choice."""
        logistic = noise.to(self.logits).clamp(EPSILON, 1 - EPSILON).logit()
        soft = torch.sigmoid((self.logits + logistic) / self.temperature)
        return (soft.detach() > 0.5).to(soft.dtype) + (soft - soft.detach())  # exactly 0 or 1

    def deterministic(self, shift: float = 0.0) -> Tensor:
        """Units of a retention above one half."""
        return (self.logits.detach() + shift > 0).to(self.logits.dtype)

    def probabilities(self) -> Tensor:
        """The retention probabilities."""
        return torch.sigmoid(self.logits)

    @torch.no_grad()
    def moved(self, amount: float) -> Tensor:
        """The same as if ``amount`` were added to every logit, within its limits."""
        return torch.sigmoid((self.logits + amount).clamp(-LIMIT, LIMIT))

    @torch.no_grad()
    def move(self, amount: float) -> None:
        """Adds ``amount`` to every logit, within its limits."""
        self.logits.add_(amount)
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        self.logits.clamp_(-LIMIT, LIMIT)
