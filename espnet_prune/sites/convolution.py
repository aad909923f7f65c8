"""Channels of a Conformer's convolution module.

A channel is masked where the last pointwise convolution reads it, that is after the norm and the
activation (a mask after the GLU is not the same, the norm's bias leaks through); its cut takes rows
c and c + channels of the first pointwise convolution, the depthwise channel, and the norm's channel
with its running statistics.
"""

import torch
from torch import Tensor, nn

from espnet_prune.sites import masked
from espnet_prune.sites.base import CONVOLUTION_CHANNEL, ConsumedSite


class ConvolutionSite(ConsumedSite):
    """Channels of one convolution module.

    Args:
        module: has ``pointwise_conv1``, ``depthwise_conv``, ``norm``, ``pointwise_conv2``.
        block: its block.
        branch: name of the branch that it is.
    """

    def __init__(self, module: nn.Module, block: int, branch: str) -> None:
        self.module = module
        super().__init__(
            f"{branch}.channels",
            CONVOLUTION_CHANNEL,
            module.depthwise_conv.out_channels,
            block,
            branch,
            consumer=module.pointwise_conv2,
        )

    def layers(self) -> list[nn.Module]:
        m = self.module
        return [m.pointwise_conv1, m.depthwise_conv, m.pointwise_conv2]

    def unit_weights(self) -> list[Tensor]:
        m = self.module
        values, gates = m.pointwise_conv1.weight.chunk(2, dim=0)
        columns = m.pointwise_conv2.weight.transpose(0, 1).contiguous()
        return [values, gates, m.depthwise_conv.weight, columns]

    def made_by(self) -> list[Tensor]:
        m = self.module
        first, depthwise, norm = m.pointwise_conv1, m.depthwise_conv, m.norm
        pairs = [*first.weight.detach().chunk(2), *first.bias.detach().chunk(2)]
        single = [depthwise.weight, depthwise.bias, norm.weight, norm.bias]
        return pairs + [tensor.detach() for tensor in single]

    def statistics(self) -> list[Tensor]:
        return [self.module.norm.running_mean, self.module.norm.running_var]

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        m = self.module
        self.cut_consumer(kept, values)
        channels = m.depthwise_conv.out_channels
        masked.keep_outputs(m.pointwise_conv1, torch.cat([kept, kept + channels]))
        masked.keep_outputs(m.depthwise_conv, kept)
        m.depthwise_conv.in_channels = m.depthwise_conv.groups = len(kept)
        m.norm.num_features = len(kept)
        m.norm.weight = nn.Parameter(m.norm.weight[kept].clone())
        m.norm.bias = nn.Parameter(m.norm.bias[kept].clone())
        m.norm.running_mean = m.norm.running_mean[kept].clone()
        m.norm.running_var = m.norm.running_var[kept].clone()
