"""Channels of Parakeet's front-end: a convolution, then pairs of a depthwise and a pointwise one.

A channel that a convolution makes is masked where the next pointwise one, or the projection into
the blocks, reads it. Its cut takes the convolution's row, the channel of the depthwise convolution
that follows, and what is read of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.sites import masked
from espnet_prune.sites.base import FRONT_END_CHANNEL, ConsumedSite


class SilentConv2d(nn.Conv2d):
    """A convolution that has no input or no output channel left; of its outputs the bias is."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, any, T, F) -> (B, channels, T', F'), the same everywhere."""
        sizes = [output_size(self, length, axis) for axis, length in enumerate(x.shape[2:])]
        silence = x.new_zeros(x.shape[0], self.out_channels, *sizes)
        return silence + self.bias[:, None, None]


def output_size(layer: nn.Conv2d, length: int, axis: int) -> int:
    """Length of what a convolution gives, along time (0) or frequency (1)."""
    padded = length + 2 * layer.padding[axis]
    return (padded - layer.kernel_size[axis]) // layer.stride[axis] + 1


class SubsamplingChannelSite(ConsumedSite):
    """Output channels of one stage.

    Args:
        index: the stage.
        maker: the convolution that makes them.
        depthwise: the one that follows; None behind the last.
        consumer: the pointwise convolution, or the projection, that reads them.
    """

    def __init__(
        self, index: int, maker: nn.Conv2d, depthwise: nn.Conv2d | None, consumer: nn.Module
    ) -> None:
        self.maker, self.depthwise = maker, depthwise
        super().__init__(
            f"front_end.{index}",
            FRONT_END_CHANNEL,
            maker.out_channels,
            consumer=consumer,
            width=consumer.weight.shape[1] // maker.out_channels,
        )

    def own(self) -> list[nn.Conv2d]:
        """The convolutions that have an output for each channel."""
        return [self.maker, *([] if self.depthwise is None else [self.depthwise])]

    def layers(self) -> list[nn.Module]:
        return [*self.own(), self.consumer]

    def unit_weights(self) -> list[Tensor]:
        return [layer.weight for layer in self.own()]

    def made_by(self) -> list[Tensor]:
        return [t.detach() for layer in self.own() for t in (layer.weight, layer.bias)]

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        self.cut_consumer(kept, values)
        for layer in self.own():
            masked.keep_outputs(layer, kept)
        if self.depthwise is not None:
            self.depthwise.groups = self.depthwise.in_channels = len(kept)
        for layer in self.layers():
            if isinstance(layer, nn.Conv2d) and not layer.weight.numel():
                layer.__class__ = SilentConv2d


def subsampling_sites(
    subsampling: nn.Module, frames: int, bins: int
) -> tuple[list[SubsamplingChannelSite], list[CostTerm], int]:
    """The sites of the front-end, what it costs up to the projection's bias, and its frames.

    Args:
        subsampling: has ``layers`` and ``linear``.
        frames: number of frames of the reference utterance.
        bins: width of the features.
    """
    first, *pairs = [layer for layer in subsampling.layers if isinstance(layer, nn.Conv2d)]
    depthwise, pointwise = pairs[::2], pairs[1::2]
    makers: Sequence[nn.Conv2d] = [first, *pointwise]
    consumers = [*pointwise, subsampling.linear]
    stages = zip(makers, [*depthwise, None], consumers, strict=True)
    sites = [SubsamplingChannelSite(index, *stage) for index, stage in enumerate(stages)]
    terms, before = [], None
    for site, layer in zip(sites, [first, *depthwise], strict=True):
        frames, bins = output_size(layer, frames, 0), output_size(layer, bins, 1)
        kernel, places = layer.kernel_size[0] * layer.kernel_size[1], frames * bins
        terms.append(CostTerm(kernel + 1, kernel * places, ((before or site).name,)))
        if before is not None:
            terms.append(CostTerm(1, places, (before.name, site.name)))
            terms.append(CostTerm(1, 0, (site.name,)))
        before = site
    read = site.width * subsampling.linear.out_features
    terms.append(CostTerm(read, read * frames, (site.name,)))
    return sites, terms, frames
