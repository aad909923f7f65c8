"""Flat minima: an update's gradient taken where the weights were disturbed first.

- ``sam``: sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412), which Na, Mehta and
  Strubell 2022 (arXiv 2205.12694) show to leave models that compress better: the gradient at
  w + rho g / |g|.
- ``cram``: the compression-aware minimiser, Peste et al. 2023 (arXiv 2207.14200; code
  IST-DASLab/CrAM): the gradient at TopK(w + rho g), of matrices and convolutions together, for a
  sparsity drawn anew at each update, where it is kept only for what TopK left; the plain gradient
  is added (their CrAM+). rho g isn't divided by |g|, as their code has it by default.

The second gradient costs a second pass, so an update takes twice as long. Batch norms see both
passes; ours leaves that, since students keep the teacher's statistics.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from espnet_prune.methods.options import SharpnessConfig
from espnet_prune.train.disturbed import Disturbed

TINY = 1e-12


class SharpnessAware(Disturbed):
    """Moves the weights up the slope, and for ``cram`` prunes them there.

    Args:
        weights: those that learn.
        config: how.
        seed: seed of the sparsities that are drawn.
    """

    def __init__(
        self, weights: Sequence[nn.Parameter], config: SharpnessConfig, seed: int = 0
    ) -> None:
        super().__init__(weights, seed)
        self.config = config
        self._plain: list[Tensor] = []
        self._kept: list[Tensor | None] = []

    def gradients(self, run: Callable[[], tuple]) -> list[Tensor]:
        found = torch.autograd.grad(run()[0], self.weights, allow_unused=True)
        return [
            torch.zeros_like(weight) if gradient is None else gradient
            for gradient, weight in zip(found, self.weights, strict=True)
        ]

    def disturb(self, gradients: Sequence[Tensor]) -> None:
        rho = self.config.rho
        if self.config.kind == "sam":
            norm = torch.stack([g.norm() for g in gradients]).norm()
            rho = rho / float(norm.clamp_min(TINY))
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.add_(gradient, alpha=rho)
        if self.config.kind == "cram":
            self._plain = list(gradients)
            self._kept = largest(self.weights, self.drawn())
            for weight, kept in zip(self.weights, self._kept, strict=True):
                if kept is not None:
                    weight.mul_(kept)

    def mend(self) -> None:
        if self.config.kind != "cram":
            return
        for weight, kept, plain in zip(self.weights, self._kept, self._plain, strict=True):
            if weight.grad is None:
                continue
            if kept is not None:
                weight.grad.mul_(kept)
            weight.grad.add_(_averaged(plain))
        self._plain, self._kept = [], []

    def drawn(self) -> float:
        """This update's sparsity."""
        return float(self.generator().choice(self.config.sparsities))


def largest(weights: Sequence[Tensor], sparsity: float) -> list[Tensor | None]:
    """Masks that keep the largest of all matrices' and convolutions' numbers; None for the others.

    Args:
        weights: any tensors; those of one dimension are left alone.
        sparsity: share of the numbers that goes.
    """
    magnitudes = [w.abs() for w in weights if w.dim() > 1]
    if not magnitudes:
        return [None for _ in weights]
    flat = torch.cat([m.flatten() for m in magnitudes])
    number = round(sparsity * len(flat))
    threshold = flat.kthvalue(number).values if number else flat.new_tensor(-1.0)
    return [(w.abs() > threshold).to(w.dtype) if w.dim() > 1 else None for w in weights]


def _averaged(gradient: Tensor) -> Tensor:
    """The mean over all processes of a training, as the second pass's gradients are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(gradient)
        gradient /= torch.distributed.get_world_size()
    return gradient
