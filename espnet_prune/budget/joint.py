"""Parameters and MACs held together: what counts is whichever is further from its target.

After "HJ-Pruning", Peng, Kim, Wu, Sridhar and Watanabe 2023 (arXiv 2302.14132), which prunes a
speech model's front-end and its Transformer jointly, under a limit of size or of MACs. Both limits
at once are ours: the sparsity is the smaller one of the two, so that a controller that reaches a
target with it has reached it in both measures.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from espnet_prune.budget.cost import BOTH, COUNTED, Budget
from espnet_prune.budget.structure import Structure


class JointBudget(Budget):
    """Sizes as shares of parameters or MACs, whichever is more, times the prunable parameters.

    Args:
        structure: the model's sites and cost terms.
        gated: names of the sites that have a gate.
    """

    def __init__(self, structure: Structure, gated: Sequence[str]) -> None:
        self.parts = [Budget(structure, gated, measure) for measure in COUNTED]
        self.prunable = self.parts[0].prunable
        super().__init__(structure, gated, "parameters")
        self.measure = BOTH

    def count(self, kept: Mapping) -> Tensor | float:
        """Size of what is kept, from the kept units of each site (numbers)."""
        return self.prunable * max(part.count(kept) / part.prunable for part in self.parts)

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Expected kept size, differentiable, float64 ()."""
        shares = [part.expected(probabilities) / part.prunable for part in self.parts]
        return self.prunable * torch.maximum(*shares)


def budget_of(structure: Structure, gated: Sequence[str], measure: str) -> Budget:
    """The budget that counts a measure."""
    return JointBudget(structure, gated) if measure == BOTH else Budget(structure, gated, measure)
