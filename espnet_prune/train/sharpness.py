"""Flat minima: an update's gradient taken where the weights were disturbed first.

- ``sam``: sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412), which Na, Mehta and
  Strubell 2022 (arXiv 2205.12694) show to leave models that compress better: the gradient at
  w + rho g / |g|.
- ``cram``: the compression-aware minimiser, Peste et al. 2023 (arXiv 2207.14200; code
  IST-DASLab/CrAM): the gradient at TopK(w + rho g), of matrices and convolutions together, for a
  sparsity drawn anew at each update, where it is kept only for what TopK left; the plain gradient
  is added (their CrAM+). rho g isn't divided by |g|, as their code has it by default.

The second gradient costs a second pass, so an update takes twice as long. Weights are back at w
before the optimiser's step. Batch norms see both passes; ours leaves that, since students keep the
teacher's statistics.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy
import torch
from torch import Tensor, nn

from espnet_prune.methods.options import SharpnessConfig

TINY = 1e-12
R = TypeVar("R", bound=tuple)


class SharpnessAware(nn.Module):
    """Disturbs some weights for the pass that gradients come from.

    Args:
        weights: those that learn.
        config: how.
        seed: of the sparsities that are drawn.
    """

    def __init__(
        self, weights: Sequence[nn.Parameter], config: SharpnessConfig, seed: int = 0
    ) -> None:
        super().__init__()
        object.__setattr__(self, "weights", list(weights))  # the model has them already
        self.config = config
        self.seed = seed
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._before: list[Tensor] | None = None
        self._plain: list[Tensor] = []
        self._kept: list[Tensor | None] = []

    def forward(self, run: Callable[[], R]) -> R:
        """What ``run`` gives where the weights are disturbed; its first value is the loss ().

        Until ``restore`` they stay so, for the backward pass. Of several passes of one update the
        first decides where to.
        """
        if self._before is None:
            found = torch.autograd.grad(run()[0], self.weights, allow_unused=True)
            self._disturb([_or_zeros(g, w) for g, w in zip(found, self.weights, strict=True)])
            torch.clear_autocast_cache()  # it has the weights as they were
        return run()

    @torch.no_grad()
    def restore(self, *unused) -> None:
        """Puts the weights back, and makes their gradients what the step needs: before the step."""
        if self._before is None:
            return
        for weight, before in zip(self.weights, self._before, strict=True):
            weight.copy_(before)
        if self.config.kind == "cram":
            for weight, kept, plain in zip(self.weights, self._kept, self._plain, strict=True):
                if weight.grad is None:
                    continue
                if kept is not None:
                    weight.grad.mul_(kept)
                weight.grad.add_(plain)
        self._before, self._plain, self._kept = None, [], []
        self.updates += 1
        torch.clear_autocast_cache()

    @torch.no_grad()
    def _disturb(self, gradients: Sequence[Tensor]) -> None:
        self._before = [weight.detach().clone() for weight in self.weights]
        rho = self.config.rho
        if self.config.kind == "sam":
            norm = torch.stack([g.norm() for g in gradients]).norm()
            rho = rho / float(norm.clamp_min(TINY))
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.add_(gradient, alpha=rho)
        if self.config.kind == "cram":
            self._plain = list(gradients)
            self._kept = largest(self.weights, self._drawn())
            for weight, kept in zip(self.weights, self._kept, strict=True):
                if kept is not None:
                    weight.mul_(kept)

    def _drawn(self) -> float:
        """This update's sparsity, which depends on the seed and the update alone."""
        state = numpy.random.SeedSequence((self.seed, int(self.updates)))
        return float(numpy.random.default_rng(state).choice(self.config.sparsities))


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


def _or_zeros(gradient: Tensor | None, weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if gradient is None else gradient
