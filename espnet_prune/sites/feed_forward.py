"""Hidden units of a feed-forward part: rows of its first layer, columns of its second.

Either layer may be a convolution over time.
"""

from torch import nn

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
            len(first.weight),
            block,
            branch,
            consumer=second,
            projections=[first],
        )
