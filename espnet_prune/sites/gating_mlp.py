"""Channels of a gating MLP: what one half of a projection makes, gated by the other half.

A channel is masked where the last projection reads it. Its cut takes the rows of both halves of the
first projection, the channel of every depthwise convolution, and that of the norm. The norm's mean
and variance are over all channels of the gating half, so they are taken over the open ones alone
(``sites.norm``); so is what a linear layer after the convolutions, or the choice among several of
them, reads. Convolutions with one group for several channels (``concat`` of a MultiConvFormer) keep
these together: they are one unit.
"""

import torch
from torch import Tensor, nn

from espnet_prune.sites import masked, norm
from espnet_prune.sites.base import CONVOLUTION_CHANNEL, ConsumedSite


class GatingSite(ConsumedSite):
    """Channels of one gating MLP, or groups of them.

    Args:
        module: has ``channel_proj1``, ``channel_proj2`` and the gating unit ``csgu``: a norm,
            ``conv`` or several ``convs``, perhaps ``linear``.
        block: its block.
        branch: name of the branch that it is.
    """

    def __init__(self, module: nn.Module, block: int, branch: str) -> None:
        self.module = module
        gate = module.csgu
        self.norm = gate.norm
        self.convolutions = list(getattr(gate, "convs", None) or [gate.conv])
        self.fusion = getattr(gate, "depthwise_conv_fusion", None)
        self.linear = gate.linear
        chooser = getattr(gate, "kernel_prob_gen", None)
        self.chooser = None if chooser is None else chooser[0]
        self.channels = self.norm.normalized_shape[0]
        each = self.convolutions[0].weight.shape[1]  # channels that one filter reads
        super().__init__(
            f"{branch}.channels",
            CONVOLUTION_CHANNEL,
            self.channels // each,
            block,
            branch,
            consumer=module.channel_proj2,
            width=each,
        )
        own = torch.arange(self.channels)
        self.read_in = own.view(self.units, each)  # of the gating half, before the convolutions
        self.made_out = own.view(each, self.units).T  # behind them, and of the other half

    @property
    def mixing(self) -> list[nn.Linear]:
        """Layers that read all channels behind the convolutions, if any."""
        return [layer for layer in (self.linear, self.chooser) if layer is not None]

    def attach(self) -> None:
        super().attach()
        norm.attach(self.norm)
        for layer in self.mixing:
            masked.attach(layer)

    def apply(self, mask: Tensor) -> None:
        super().apply(mask)
        norm.apply(self.norm, mask, self.read_in)
        is_open = self.spread((mask.detach() != 0).to(mask.dtype))
        for layer in self.mixing:
            layer.input_scale = is_open.repeat(layer.in_features // self.channels)

    def clear(self) -> None:
        super().clear()
        norm.clear(self.norm)
        for layer in self.mixing:
            if isinstance(layer, masked._Masked):
                masked.clear(layer)

    def detach(self) -> None:
        super().detach()
        norm.detach(self.norm)
        for layer in self.mixing:
            masked.detach(layer)

    def depthwise(self) -> list[nn.Conv1d]:
        """All convolutions over time."""
        return [*self.convolutions, *([] if self.fusion is None else [self.fusion])]

    def layers(self) -> list[nn.Module]:
        first, last = self.module.channel_proj1[0], self.consumer
        return [first, *self.depthwise(), *self.mixing, last]

    def unit_weights(self) -> list[Tensor]:
        values, gates, *_ = self.made_by()
        weights = [conv.weight for conv in self.convolutions]
        return [values, gates, *weights, self._read_by_unit()]

    def _read_by_unit(self) -> Tensor:
        return self.consumer.weight[:, self.made_out.flatten()].transpose(0, 1)

    def made_by(self) -> list[Tensor]:
        first = self.module.channel_proj1[0]
        found = []
        for rows in (first.weight.detach(), first.bias.detach()):
            values, gates = rows.chunk(2)
            found += [self._by_output(values), gates.view(self.units, self.width, -1)]
        for conv in self.convolutions:
            found += [conv.weight.detach(), conv.bias.detach()]
        if self.fusion is not None:
            found += [self._by_output(t.detach()) for t in (self.fusion.weight, self.fusion.bias)]
        if self.linear is not None:
            found.append(self._by_output(self.linear.bias.detach()))
        own = (self.norm.weight.detach(), self.norm.bias.detach())
        return found + [each.view(self.units, self.width) for each in own]

    def _by_output(self, rows: Tensor) -> Tensor:
        """A view (units, width, ...) of what stands in the order behind the convolutions."""
        return rows.view(self.width, self.units, -1).transpose(0, 1)

    def spread(self, per_unit: Tensor) -> Tensor:
        """(units,) -> (channels,), in the order behind the convolutions."""
        return per_unit.repeat(self.width)

    def columns(self, kept: Tensor) -> Tensor:
        return self.made_out[kept].reshape(-1)

    def cut_consumer(self, kept: Tensor, values: Tensor) -> None:
        masked.keep_inputs(self.consumer, self._behind(kept), self.spread(values))

    def _behind(self, kept: Tensor) -> Tensor:
        """Channels behind the convolutions, as they stay in order."""
        return self.made_out[kept].T.reshape(-1)

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        self.cut_consumer(kept, values)
        outputs, inputs = self._behind(kept), self.read_in[kept].flatten()
        rows = torch.cat([outputs, self.channels + inputs])
        masked.keep_outputs(self.module.channel_proj1[0], rows)
        norm.keep(self.norm, inputs)
        for conv in self.convolutions:
            masked.keep_outputs(conv, kept)
            conv.groups, conv.in_channels = len(kept), len(inputs)
        if self.fusion is not None:
            masked.keep_outputs(self.fusion, outputs)
            self.fusion.groups = self.fusion.in_channels = len(outputs)
        for layer in self.mixing:
            times = layer.in_features // self.channels
            read = torch.cat([outputs + self.channels * k for k in range(times)])
            masked.keep_inputs(layer, read, torch.ones(len(read)))
        if self.linear is not None:
            masked.keep_outputs(self.linear, outputs)
