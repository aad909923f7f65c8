"""Sites of ESPnet's Conv2dSubsampling: the channels of its two convolutions.

The second convolution reads the first one's channels, so their costs are a product. In a
LibriSpeech-size Conformer this front-end is more than a third of the multiply-accumulates.
"""

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.sites import masked
from espnet_prune.sites.base import FRONT_END_CHANNEL, ConsumedSite

KERNEL = 3  # both convolutions of Conv2dSubsampling: kernel 3, stride 2; ESPnet's without padding
STRIDE = 2
NAMES = ("front_end.0", "front_end.1")
USUAL_BINS = 80  # of ESPnet's own filter bank


def subsampled(length: int, padding: int = 0) -> int:
    """Length after one of the two convolutions."""
    return (length + 2 * padding - KERNEL) // STRIDE + 1


def encoder_positions(frames: int, padding: int = 0) -> int:
    """Length after both."""
    return subsampled(subsampled(frames, padding), padding)


def padding_of(embed: nn.Module) -> int:
    """What both convolutions of a front-end add on every side; ESPnet's own add nothing."""
    return getattr(embed, "padding", 0)


def fitting_bins(last_bins: int, padding: int = 0) -> list[int]:
    """Bins of features of which both convolutions leave ``last_bins``, ascending.

    Rounding makes them four; 80 stands for all of its four, being ESPnet's own.
    """
    smallest = last_bins
    for _ in range(2):
        smallest = (smallest - 1) * STRIDE + KERNEL - 2 * padding
    bins = list(range(smallest, smallest + STRIDE * STRIDE))
    return [USUAL_BINS] if USUAL_BINS in bins else bins


class EmptyFrontEnd(nn.Module):
    """Stands for both convolutions when no channel of the second is left."""

    def __init__(self, padding: int = 0) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, 1, T, F) -> (B, 0, T'', F'')."""
        time, frequency = (encoder_positions(n, self.padding) for n in x.shape[2:])
        return x.new_zeros(x.shape[0], 0, time, frequency)


class ConstantFrontEnd(nn.Module):
    """Stands for both convolutions when no channel of the first is left: the second's bias."""

    def __init__(self, bias: Tensor, padding: int = 0) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.detach().clone())
        self.padding = padding

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, 1, T, F) -> (B, channels, T'', F''), the same everywhere."""
        time, frequency = (encoder_positions(n, self.padding) for n in x.shape[2:])
        value = torch.relu(self.bias).view(1, -1, 1, 1)
        return value.expand(x.shape[0], -1, time, frequency)


class FrontEndSite(ConsumedSite):
    """Channels of one of the two convolutions.

    Args:
        embed: the Conv2dSubsampling.
        index: 0 for the first convolution, 1 for the second.
        frequencies: frequency bins after both convolutions, what a channel feeds of ``out``.
    """

    def __init__(self, embed: nn.Module, index: int, frequencies: int) -> None:
        self.embed = embed
        self.index = index
        self.reader = NAMES[1] if index == 0 else None
        producer = embed.conv[2 * index]
        super().__init__(
            NAMES[index],
            FRONT_END_CHANNEL,
            producer.out_channels,
            consumer=embed.conv[2] if index == 0 else embed.out,
            width=1 if index == 0 else frequencies,
        )

    def layers(self) -> list[nn.Module]:
        return [self.embed.conv[2 * self.index], self.consumer]

    def unit_weights(self) -> list[Tensor]:
        return [self.embed.conv[2 * self.index].weight]

    def made_by(self) -> list[Tensor]:
        producer = self.embed.conv[2 * self.index]
        return [producer.weight.detach(), producer.bias.detach()]

    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Cuts the channels; ``front_end.0`` must be cut before ``front_end.1``."""
        convolutions = self.embed.conv
        if self.index == 0 and len(kept) == 0:
            self.embed.conv = ConstantFrontEnd(convolutions[2].bias, padding_of(self.embed))
            return
        self.cut_consumer(kept, values)
        if self.index == 1 and len(kept) == 0:
            self.embed.conv = EmptyFrontEnd(padding_of(self.embed))
        elif isinstance(convolutions, ConstantFrontEnd):
            convolutions.bias = nn.Parameter(convolutions.bias.detach()[kept].clone())
        else:
            masked.keep_outputs(convolutions[2 * self.index], kept)


def front_end_sites(
    embed: nn.Module, frames: int, size: int, bins: int | None = None
) -> tuple[list[FrontEndSite], list[CostTerm]]:
    """The two sites of a Conv2dSubsampling and their costs.

    Args:
        embed: the module, with ``conv`` and ``out``.
        frames: feature frames of the reference utterance.
        size: model dimension D.
        bins: bins of the features; the module itself knows them only up to rounding. By default 80,
            ESPnet's own, where that fits, else the smallest number that does.
    """
    channels = embed.conv[2].out_channels
    last_bins = embed.out.in_features // channels
    padding = padding_of(embed)
    bins = fitting_bins(last_bins, padding)[0] if bins is None else bins
    first = subsampled(frames, padding)
    second = subsampled(first, padding)
    area = KERNEL * KERNEL
    terms = [
        CostTerm(area + 1, area * first * subsampled(bins, padding), (NAMES[0],)),
        CostTerm(area, area * second * last_bins, NAMES),
        CostTerm(1 + last_bins * size, last_bins * size * second, (NAMES[1],)),
        CostTerm(size, 0, ()),
    ]
    return [FrontEndSite(embed, i, last_bins) for i in (0, 1)], terms
