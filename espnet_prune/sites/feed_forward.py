"""Hidden units of a feed-forward part: rows of its first layer, columns of its second.

Either layer may be a convolution over time. In a gated feed-forward a unit is two rows of the first
layer: its value and, behind the values of all, its gate.
"""

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
    """

    def __init__(
        self, first: nn.Module, second: nn.Module, block: int, branch: str, share: float = 1.0
    ) -> None:
        self.share = share
        super().__init__(
            f"{branch}.units",
            FEED_FORWARD_UNIT,
            self.rows(first.weight)[0].shape[0],
            block,
            branch,
            consumer=second,
            projections=[first],
        )

    @staticmethod
    def rows(tensor: Tensor) -> tuple[Tensor, ...]:
        """A tensor of the first layer in parts that each have a row a unit."""
        return (tensor,)


class GatedFeedForwardSite(FeedForwardSite):
    """The hidden units of a gated feed-forward part."""

    @staticmethod
    def rows(tensor: Tensor) -> tuple[Tensor, ...]:
        return tensor.chunk(2)

    def unit_weights(self) -> list[Tensor]:
        return [*self.rows(self.projections[0].weight), self.read_weights()]

    def made_by(self) -> list[Tensor]:
        first = self.projections[0]
        tensors = [t.detach() for t in (first.weight, first.bias) if t is not None]
        return [rows.reshape(self.units, -1) for tensor in tensors for rows in self.rows(tensor)]

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        self.cut_consumer(kept, values)
        masked.keep_outputs(self.projections[0], torch.cat([kept, kept + self.units]))
