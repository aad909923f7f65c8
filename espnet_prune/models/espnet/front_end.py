"""Front-ends of ESPnet's encoders, and their sites: the channels of subsampling convolutions.

A convolution reads the channels of the one before it, so their costs are a product. In a
LibriSpeech-size Conformer its front-end is more than a third of the multiply-accumulates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.sites import count_parameters, masked
from espnet_prune.sites.base import FRONT_END_CHANNEL, ConsumedSite

USUAL_BINS = 80  # of ESPnet's own filter bank
# ESPnet's name of a front-end: its class, and kernel and stride of each convolution
SUBSAMPLING = {
    "conv1d1": ("Conv1dSubsampling1", ((3, 1), (3, 1))),
    "conv1d2": ("Conv1dSubsampling2", ((3, 1), (3, 2))),
    "conv1d3": ("Conv1dSubsampling3", ((3, 1), (5, 3))),
    "conv2d": ("Conv2dSubsampling", ((3, 2), (3, 2))),
    "conv2d1": ("Conv2dSubsampling1", ((3, 1), (3, 1))),
    "conv2d2": ("Conv2dSubsampling2", ((3, 2), (3, 1))),
    "conv2d6": ("Conv2dSubsampling6", ((3, 2), (5, 3))),
    "conv2d8": ("Conv2dSubsampling8", ((3, 2), (3, 2), (3, 2))),
}
STREAMING = "Conv2dSubsamplingWOPosEnc"  # any convolutions over images, and no positions
IMAGES = tuple(name for name in SUBSAMPLING if name.startswith("conv2d"))
WITHOUT_CHANNELS = ("linear", "wav2vec", None)  # other input layers that are known


@dataclass(frozen=True)
class Subsampling:
    """The convolutions of a front-end, which a cut leaves as they are but for their widths.

    Attributes:
        input_layer: ESPnet's name of it.
        steps: kernel and stride of each convolution.
        padding: zeros on every side of each, of which ESPnet's own add none.
    """

    input_layer: str
    steps: tuple[tuple[int, int], ...]
    padding: int = 0

    @property
    def is_image(self) -> bool:
        """Whether the convolutions run over frequencies as well as over time."""
        return self.input_layer in IMAGES

    @property
    def rate(self) -> int:
        """Frames of features for one position of the encoder."""
        return prod(stride for _, stride in self.steps)

    @property
    def reach(self) -> int:
        """Frames that the first position looks at, without padding."""
        reach, stride = 1, 1
        for kernel, step in self.steps:
            reach += (kernel - 1) * stride - 2 * self.padding * stride
            stride *= step
        return reach

    def lengths(self, length: int) -> list[int]:
        """How many frames or bins each convolution leaves."""
        found = []
        for kernel, stride in self.steps:
            length = (length + 2 * self.padding - kernel) // stride + 1
            found.append(length)
        return found

    def sizes_of(self, last: int) -> list[int]:
        """Lengths of which the convolutions leave ``last``, ascending."""
        smallest = last
        for kernel, stride in reversed(self.steps):
            smallest = (smallest - 1) * stride + kernel - 2 * self.padding
        return list(range(smallest, smallest + self.rate))


def subsampling_of(embed: nn.Module | None) -> Subsampling | None:
    """What is known of a front-end with convolutions; None for any other."""
    names = {kind.__name__ for kind in type(embed).__mro__}
    if STREAMING in names:
        own = tuple(zip(embed.kernels, embed.strides, strict=True))
        found = [name for name in IMAGES if SUBSAMPLING[name][1] == own]
        return Subsampling(found[0], own) if found else None
    for input_layer, (name, steps) in SUBSAMPLING.items():
        if name in names:
            return Subsampling(input_layer, steps, getattr(embed, "padding", 0))
    return None


def unknown_layers(embed: nn.Module | None) -> list[str]:
    """Classes of a front-end without convolutions that have no place in one; no channels to cut."""
    if not isinstance(embed, nn.Sequential):
        return [] if embed is None or isinstance(embed, nn.Linear) else [type(embed).__name__]
    plain = (nn.Linear, nn.LayerNorm, nn.Identity, nn.Dropout, nn.ReLU)
    return [
        type(layer).__name__
        for layer in embed
        if not (isinstance(layer, plain) or hasattr(layer, "extend_pe"))
    ]


class EmptyFrontEnd(nn.Module):
    """Stands for all convolutions when no channel of the last is left.

    Args:
        front_end: the convolutions' kernels and strides.
    """

    def __init__(self, front_end: Subsampling) -> None:
        super().__init__()
        self.front_end = front_end

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, 1, T, F) -> (B, 0, T', F'), or (B, F, T) -> (B, 0, T')."""
        sizes = (self.front_end.lengths(size)[-1] for size in x.shape[2:])
        return x.new_zeros(x.shape[0], 0, *sizes)


class ConstantFrontEnd(nn.Module):
    """Stands for the first convolutions when no channel of one is left: the next one's bias.

    Args:
        front_end: the convolutions' kernels and strides.
        index: index of the convolution whose bias is left.
        bias: (channels,), that one.
        rest: what follows its activation.
    """

    def __init__(
        self, front_end: Subsampling, index: int, bias: Tensor, rest: nn.Sequential
    ) -> None:
        super().__init__()
        self.front_end = front_end
        self.index = index
        self.bias = nn.Parameter(bias.detach().clone())
        self.rest = rest

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, 1, T, F) -> (B, C, T', F'), or (B, F, T) -> (B, C, T'), the same at all times."""
        sizes = [self.front_end.lengths(size)[self.index] for size in x.shape[2:]]
        value = torch.relu(self.bias).view(1, -1, *(1 for _ in sizes))
        return self.rest(value.expand(x.shape[0], -1, *sizes))


class FrontEndSite(ConsumedSite):
    """Channels of one convolution; the sites must be cut in order.

    Args:
        embed: ESPnet's front-end.
        front_end: its convolutions' kernels and strides.
        index: index of the convolution.
        bins: number of bins of frequency that a channel of the last convolution feeds of ``out``.
    """

    def __init__(self, embed: nn.Module, front_end: Subsampling, index: int, bins: int) -> None:
        self.embed = embed
        self.front_end = front_end
        self.index = index
        self.all_layers = list(embed.conv)
        is_last = index == len(front_end.steps) - 1
        self.reader = None if is_last else _name(index + 1)
        self.producer = self.all_layers[2 * index]
        super().__init__(
            _name(index),
            FRONT_END_CHANNEL,
            self.producer.out_channels,
            consumer=embed.out if is_last else self.all_layers[2 * index + 2],
            width=bins if is_last else 1,
        )

    def layers(self) -> list[nn.Module]:
        return [self.producer, self.consumer]

    def unit_weights(self) -> list[Tensor]:
        return [self.producer.weight]

    def made_by(self) -> list[Tensor]:
        return [self.producer.weight.detach(), self.producer.bias.detach()]

    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Cuts the channels; where none is left, nothing before them is either."""
        if self.reader is not None and len(kept) == 0:
            rest = nn.Sequential(*self.all_layers[2 * self.index + 4 :])
            bias = self.consumer.bias
            self.embed.conv = ConstantFrontEnd(self.front_end, self.index + 1, bias, rest)
            return
        self.cut_consumer(kept, values)
        now = self.embed.conv
        if len(kept) == 0:
            self.embed.conv = EmptyFrontEnd(self.front_end)
        elif isinstance(now, ConstantFrontEnd) and now.index == self.index:
            now.bias = nn.Parameter(now.bias.detach()[kept].clone())
        else:
            masked.keep_outputs(self.producer, kept)


def front_end_sites(
    encoder: nn.Module, frames: int, bins: int | None = None
) -> tuple[list[FrontEndSite], list[CostTerm], int]:
    """The sites of an encoder's front-end, its costs, and the encoder's positions.

    Args:
        encoder: one of ESPnet's, with ``embed``.
        frames: feature frames of the reference utterance.
        bins: bins of the features; the module itself knows them only up to rounding. By default 80,
            ESPnet's own, where that fits, else the smallest number that does.

    Raises:
        ModelError: a front-end that isn't known.
    """
    embed = encoder.embed
    front_end = subsampling_of(embed)
    if front_end is None:
        check_input_layer(embed)
        return [], [CostTerm(_parameters(embed), _linear_macs(embed, frames), ())], frames
    if not isinstance(embed.conv, nn.Sequential):
        raise ModelError(
            "front_end: all channels of one of its convolutions were cut, so this model hears "
            "nothing; prune the model that it was cut from"
        )
    times = front_end.lengths(frames)
    heights, last = [1] * len(times), 1
    if front_end.is_image:
        last = embed.out.in_features // _last_channels(embed)
        heights = front_end.lengths(features_that_fit(embed)[0] if bins is None else bins)
    sites = [FrontEndSite(embed, front_end, i, last) for i in range(len(times))]
    terms, before = [], ()
    for site, time, height in zip(sites, times, heights, strict=True):
        weights = site.producer.weight[0].numel()
        area = weights // site.producer.in_channels if before else weights
        terms.append(CostTerm(area, area * time * height, (*before, site.name)))
        terms.append(CostTerm(1, 0, (site.name,)))
        before = (site.name,)
    size = encoder.output_size()
    terms.append(CostTerm(last * size, last * size * times[-1], before))
    positions = getattr(embed, "pos_enc", None)
    terms.append(CostTerm(size + _parameters(positions), 0, ()))
    return sites, terms, times[-1]


def positions_of(encoder: nn.Module, frames: int) -> int:
    """Length of an encoder's output for so many frames of features."""
    front_end = subsampling_of(encoder.embed)
    return frames if front_end is None else front_end.lengths(frames)[-1]


def features_that_fit(embed: nn.Module) -> list[int]:
    """Widths of the features that a dense front-end takes, ascending; none where any would do.

    Rounding makes them several behind ``conv2d``; 80 stands for all of its own, being ESPnet's.
    """
    front_end = subsampling_of(embed)
    if front_end is None:
        return [layer.in_features for layer in _linears(embed)]
    if not front_end.is_image:
        return [embed.conv[0].in_channels]
    found = front_end.sizes_of(embed.out.in_features // _last_channels(embed))
    return [USUAL_BINS] if USUAL_BINS in found else found


def fits(embed: nn.Module, size: int, other: int) -> bool:
    """Whether features of one width go through a front-end that those of another go through."""
    front_end = subsampling_of(embed)
    if front_end is None or not front_end.is_image:
        return size == other
    return front_end.lengths(size)[-1] == front_end.lengths(other)[-1]


def check_input_layer(embed: nn.Module | None) -> None:
    """ModelError for a front-end of another kind than those that are known."""
    unknown = [] if subsampling_of(embed) is not None else unknown_layers(embed)
    if unknown:
        known = ", ".join(map(str, (*SUBSAMPLING, *WITHOUT_CHANNELS)))
        raise ModelError(
            f"input_layer: {unknown[0]} isn't known in the front-end; known are {known}. One is "
            "added in espnet_prune/models/espnet/front_end.py"
        )


def _name(index: int) -> str:
    return f"front_end.{index}"


def _last_channels(embed: nn.Module) -> int:
    if not isinstance(embed.conv, nn.Sequential):
        raise ModelError("front-end: it was cut, and no longer shows the widths that it had")
    return embed.conv[-2].out_channels


def _parameters(module: nn.Module | None) -> int:
    return 0 if module is None else count_parameters(module)


def _linears(embed: nn.Module | None) -> Iterator[nn.Linear]:
    return (m for m in (() if embed is None else embed.modules()) if isinstance(m, nn.Linear))


def _linear_macs(embed: nn.Module | None, frames: int) -> int:
    return sum(layer.weight.numel() * frames for layer in _linears(embed))
