"""Hidden units of a feed-forward part: rows of its first layer, columns of its second.

Either layer may be a convolution over time. In a gated feed-forward a unit is two rows of the first
layer: its value and, behind the values of all, its gate.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from espnet_prune.sites import masked
from espnet_prune.sites.base import FEED_FORWARD_UNIT, LinearSite


class FeedForwardSite(LinearSite):
    """The hidden units of one feed-forward part.

    Args:
        first: the layer that makes them.
        second: the layer that reads them.
        block: its block.
        branch: name of the branch that it is.
        share: how much of what it gives is added to the residual stream, where the block itself
            doesn't say so by ``ff_scale``.

    Attributes:
        rows: rows of the first layer that make a unit.
    """

    rows: ClassVar[int] = 1

    def __init__(
        self, first: nn.Module, second: nn.Module, block: int, branch: str, share: float = 1.0
    ) -> None:
        self.share = share
        super().__init__(
            f"{branch}.units",
            FEED_FORWARD_UNIT,
            len(first.weight) // self.rows,
            block,
            branch,
            consumer=second,
            projections=[first],
        )


class GatedFeedForwardSite(FeedForwardSite):
    """The hidden units of a gated feed-forward part."""

    rows = 2

    def unit_weights(self) -> list[Tensor]:
        return [*self.projections[0].weight.chunk(2), self.read_weights()]

    def made_by(self) -> list[Tensor]:
        first = self.projections[0]
        halves = [half for t in (first.weight, first.bias) if t is not None for half in t.chunk(2)]
        return [half.detach().reshape(self.units, -1) for half in halves]

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        self.cut_consumer(kept, values)
        masked.keep_outputs(self.projections[0], torch.cat([kept, kept + self.units]))
