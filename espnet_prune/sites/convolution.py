"""Channels of a Conformer's convolution module.

A channel is masked where the last pointwise convolution reads it, that is after the norm and the
activation (a mask after the GLU is not the same, the norm's bias leaks through); its cut takes rows
c and c + channels of the first pointwise convolution, the depthwise channel, and the norm's channel
with its running statistics. A layer norm is taken over the open channels alone (``sites.norm``).
"""

import torch
from torch import Tensor, nn

from espnet_prune.sites import masked, norm
from espnet_prune.sites.base import CONVOLUTION_CHANNEL


class ConvolutionSite(norm.NormedSite):
    """Channels of one convolution module.

    Args:
        module: has ``pointwise_conv1``, ``depthwise_conv``, a norm, ``pointwise_conv2``.
        block: its block.
        branch: name of the branch that it is.
        norm_name: attribute of its norm, a batch norm or a layer norm.
    """

    def __init__(self, module: nn.Module, block: int, branch: str, norm_name: str = "norm") -> None:
        self.module = module
        self.norm_name = norm_name
        super().__init__(
            f"{branch}.channels",
            CONVOLUTION_CHANNEL,
            module.depthwise_conv.out_channels,
            block,
            branch,
            consumer=module.pointwise_conv2,
        )

    @property
    def norm(self) -> nn.Module:
        """The norm behind the depthwise convolution."""
        return getattr(self.module, self.norm_name)

    def layers(self) -> list[nn.Module]:
        m = self.module
        return [m.pointwise_conv1, m.depthwise_conv, m.pointwise_conv2]

    def unit_weights(self) -> list[Tensor]:
        m = self.module
        values, gates = m.pointwise_conv1.weight.chunk(2, dim=0)
        columns = m.pointwise_conv2.weight.transpose(0, 1).contiguous()
        return [values, gates, m.depthwise_conv.weight, columns]

    def norms(self) -> list[nn.LayerNorm]:
        return [self.norm] if isinstance(self.norm, nn.LayerNorm) else []

    def made_by(self) -> list[Tensor]:
        first, depthwise = self.module.pointwise_conv1, self.module.depthwise_conv
        pairs = [half for t in (first.weight, first.bias) if t is not None for half in t.chunk(2)]
        single = [depthwise.weight, depthwise.bias, self.norm.weight, self.norm.bias]
        return [tensor.detach() for tensor in (*pairs, *single) if tensor is not None]

    def statistics(self) -> list[Tensor]:
        return [] if self.norms() else [self.norm.running_mean, self.norm.running_var]

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        m = self.module
        self.cut_consumer(kept, values)
        channels = m.depthwise_conv.out_channels
        masked.keep_outputs(m.pointwise_conv1, torch.cat([kept, kept + channels]))
        masked.keep_outputs(m.depthwise_conv, kept)
        m.depthwise_conv.in_channels = m.depthwise_conv.groups = len(kept)
        norm.keep(self.norm, kept)
        if not self.norms():
            self.norm.num_features = len(kept)
            self.norm.running_mean = self.norm.running_mean[kept].clone()
            self.norm.running_var = self.norm.running_var[kept].clone()
