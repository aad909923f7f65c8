"""Whole residual branches: masked by the last layer's weight and bias, cut by taking them out."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import BRANCH
from espnet_prune.sites.base import OutputSite


class GoneBranch(nn.Module):
    """Stands where a branch was: adds nothing, costs nothing.

    A gating MLP gets positions with its input.
    """

    def forward(self, x: Tensor | tuple[Tensor, Tensor], *unused, **ignored) -> Tensor:
        """(B, T, D) -> zeros (B, T, D)."""
        return torch.zeros_like(x[0] if isinstance(x, tuple) else x)


class BranchSite(OutputSite):
    """One residual branch of a block, a site of one unit.

    Args:
        name: its name.
        block: index of its block.
        last: its last layer.
        layer: the block.
        instead: attributes of the block, and what they are once the branch is gone.
        parent: the block's site, where that can go too.
    """

    def __init__(
        self,
        name: str,
        block: int,
        last: nn.Module,
        layer: nn.Module,
        instead: Mapping[str, object],
        parent: str | None = None,
    ) -> None:
        super().__init__(name, BRANCH, 1, block, parent, last=last)
        self.layer = layer
        self.instead = instead

    @property
    def norm(self) -> str | None:
        """Attribute of the block's norm that reads the residual stream for this branch alone."""
        gone = (a for a, value in self.instead.items() if isinstance(value, nn.Identity))
        return next((attribute for attribute in gone if "norm" in attribute), None)

    def remove(self) -> None:
        for attribute, value in self.instead.items():
            setattr(self.layer, attribute, value)
