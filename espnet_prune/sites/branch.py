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


def norm_of(instead: Mapping[str, object]) -> str | None:
    """The norm among the attributes of a block that go with a branch."""
    gone = (a for a, value in instead.items() if isinstance(value, nn.Identity))
    return next((attribute for attribute in gone if "norm" in attribute), None)


class BranchSite(OutputSite):
    """One residual branch of a block, a site of one unit.

    Args:
        name: its name.
        block: index of its block.
        last: its last layer.
        layer: the block.
        instead: attributes of the block, and what they are once the branch is gone.
        parent: the block's site, where that can go too.

    Attributes:
        adds_to_stream: whether what the last layer says is added to the residual stream as it is.
    """

    adds_to_stream = True

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
        """The block's norm that reads the residual stream which the last layer adds to, if any."""
        return norm_of(self.instead) if self.adds_to_stream else None

    def remove(self) -> None:
        for attribute, value in self.instead.items():
            setattr(self.layer, attribute, value)
