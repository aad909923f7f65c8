"""Two branches side by side that one projection merges: their channels, and the branches whole.

A Branchformer joins what attention and the gating MLP make, channel beside channel, lets an
E-Branchformer's depthwise convolution add its own, and projects both together. A channel is masked
where that projection reads it; its cut takes the row of the layer that makes it and the channel of
the convolution too. A branch is all of its channels: where it goes, the projection reads only the
other one's.
"""

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import BRANCH
from espnet_prune.sites import masked
from espnet_prune.sites.base import CONVOLUTION_CHANNEL, ConsumedSite, Site
from espnet_prune.sites.branch import norm_of


class NoChannels(nn.Module):
    """Stands where one of two merged branches was: makes no channel.

    A gating MLP gets positions with its input, attention gets its input several times.
    """

    def forward(self, x: Tensor | tuple[Tensor, Tensor], *unused: object) -> Tensor:
        """(B, T, D) -> (B, T, 0)."""
        x = x[0] if isinstance(x, tuple) else x
        return x[..., :0]


class _Half:
    """Mixin: which of the inputs of ``consumer`` are those of one branch.

    ``is_second`` says whether they stand behind the other branch's, which may have been cut.
    """

    consumer: nn.Linear
    is_second: bool
    inputs: int

    @property
    def first(self) -> int:
        return self.consumer.weight.shape[1] - self.inputs if self.is_second else 0

    def keep(self, kept: Tensor, values: Tensor) -> None:
        """Cuts the consumer's own columns to ``kept``, scaled by ``values``; others stay."""
        others, first = self.consumer.weight.shape[1] - self.inputs, self.first
        columns, ones = self.around(kept), torch.ones(others)
        scales = [ones, values.float()] if first else [values.float(), ones]
        masked.keep_inputs(self.consumer, columns, torch.cat(scales))

    def around(self, kept: Tensor) -> Tensor:
        """Indices of all inputs that stay: those ``kept`` of this half, and all of the other."""
        first, last = self.first, self.first + self.inputs
        total = self.consumer.weight.shape[1]
        return torch.cat([torch.arange(first), first + kept, torch.arange(last, total)])


class MergedChannelSite(_Half, ConsumedSite):
    """The channels of one of two merged branches.

    Args:
        layer: the block, with ``merge_proj`` and perhaps ``depthwise_conv_fusion``.
        producer: the last layer of the branch.
        units: the site of its units, without which it makes none of these either.
        is_second: whether the channels stand behind those of the other branch.
    """

    def __init__(self, layer: nn.Module, producer: nn.Linear, units: Site, is_second: bool) -> None:
        self.layer = layer
        self.producer = producer
        self.is_second = is_second
        self.inputs = producer.out_features
        super().__init__(
            f"{units.parent}.merged",
            CONVOLUTION_CHANNEL,
            producer.out_features,
            units.block,
            units.parent,
            consumer=layer.merge_proj,
        )
        self.reader, units.reader = units.name, self.name  # neither is there without the other

    @property
    def fusion(self) -> nn.Conv1d | None:
        """The convolution over both branches' channels."""
        return getattr(self.layer, "depthwise_conv_fusion", None)

    def apply(self, mask: Tensor) -> None:
        masked.scale_inputs(self.consumer, mask, self.first)

    def layers(self) -> list[nn.Module]:
        convolution = [] if self.fusion is None else [self.fusion]
        return [self.producer, *convolution, self.consumer]

    def unit_weights(self) -> list[Tensor]:
        return [self.producer.weight, self.read_weights()]

    def made_by(self) -> list[Tensor]:
        """The rows of the producer are shared with the other site, and not among them."""
        if self.fusion is None:
            return []
        own = slice(self.first, self.first + self.units)
        return [t.detach()[own] for t in (self.fusion.weight, self.fusion.bias)]

    def unit_rows(self) -> list[Tensor]:
        rows = [self.producer.weight.detach(), self.producer.bias.detach()]
        return rows + self.made_by()

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        stay = self.around(kept)
        self.keep(kept, values)
        masked.keep_outputs(self.producer, kept)
        if self.fusion is not None:
            masked.keep_outputs(self.fusion, stay)
            self.fusion.groups = self.fusion.in_channels = len(stay)
            if not len(stay):
                self.layer.depthwise_conv_fusion = nn.Identity()


class MergedBranchSite(_Half, Site):
    """One of two merged branches, a site of one unit.

    Args:
        name: its name.
        block: index of its block.
        layer: the block.
        producer: the last layer of the branch.
        instead: attributes of the block, and what they are once the branch is gone.
        is_second: whether its channels stand behind those of the other branch.
        parent: the block's site, where that can go too.
    """

    def __init__(
        self,
        name: str,
        block: int,
        layer: nn.Module,
        producer: nn.Linear,
        instead: dict[str, object],
        is_second: bool,
        parent: str | None = None,
    ) -> None:
        super().__init__(name, BRANCH, 1, block, parent)
        self.layer = layer
        self.consumer = layer.merge_proj
        self.producer = producer
        self.instead = instead
        self.is_second = is_second

    @property
    def inputs(self) -> int:
        """How many channels are left of the branch."""
        return len(self.producer.weight)

    @property
    def last(self) -> nn.Linear:
        """The layer that adds to the residual stream."""
        return self.consumer

    @property
    def norm(self) -> str | None:
        """The block's norm that reads that stream."""
        return norm_of(self.instead)

    def attach(self) -> None:
        masked.attach(self.consumer)

    def apply(self, mask: Tensor) -> None:
        masked.scale_inputs(self.consumer, mask.expand(self.inputs), self.first)

    def clear(self) -> None:
        if isinstance(self.consumer, masked._Masked):
            masked.clear(self.consumer)

    def detach(self) -> None:
        masked.detach(self.consumer)

    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Folds the value in, or takes the branch out, whose channels are gone by then."""
        if len(kept):
            everything = torch.arange(self.inputs)
            self.keep(everything, values.expand(self.inputs))
        else:
            for attribute, value in self.instead.items():
                setattr(self.layer, attribute, value)
