"""Quant-Noise: in each update some blocks of the weights are as they will be in few bits.

"Training with Quantization Noise for Extreme Model Compression", Fan et al. 2020 (arXiv
2004.07320): a random share of a matrix's blocks is quantised in each forward pass, and the gradient
goes straight through; the other weights stay exact, so that they have unbiased gradients. Blocks
are stretches of a row. Ours: numbers are the nearest of those in the files (``surgery.rounding``),
and the share drawn is the same in all weights of an update.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from espnet_prune.methods.options import QuantNoiseConfig
from espnet_prune.surgery.rounding import FORMS, nearest
from espnet_prune.train.disturbed import Disturbed


class QuantNoise(Disturbed):
    """Rounds some blocks of every matrix and convolution.

    Args:
        weights: those that learn.
        config: how.
        seed: seed of the blocks that are drawn.
    """

    def __init__(
        self, weights: Sequence[nn.Parameter], config: QuantNoiseConfig, seed: int = 0
    ) -> None:
        super().__init__(weights, seed)
        self.config = config

    def disturb(self, gradients: Sequence[Tensor]) -> None:
        draw = torch.Generator().manual_seed(int(self.generator().integers(2**62)))
        for weight in self.weights:
            if weight.dim() > 1:
                chosen = self._chosen(weight, draw).to(weight.device)
                rounded, _ = nearest(weight, FORMS[self.config.bits])
                weight.copy_(torch.where(chosen, rounded, weight))

    def _chosen(self, weight: Tensor, draw: torch.Generator) -> Tensor:
        """Which numbers are rounded, of the weight's shape."""
        rows, numbers = len(weight), weight[0].numel()
        blocks = -(-numbers // self.config.block)
        drawn = torch.rand(rows, blocks, generator=draw) < self.config.share
        spread = drawn.repeat_interleave(self.config.block, dim=1)[:, :numbers]
        return spread.reshape(weight.shape)
