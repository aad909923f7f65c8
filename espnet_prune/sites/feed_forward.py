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
    """

    def __init__(self, first: nn.Module, second: nn.Module, block: int, branch: str) -> None:
        super().__init__(
            f"{branch}.units",
            FEED_FORWARD_UNIT,
            len(first.weight),
            block,
            branch,
            consumer=second,
            projections=[first],
        )
