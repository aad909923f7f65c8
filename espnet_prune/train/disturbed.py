"""Updates whose gradient is taken where the weights were changed for a moment."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy
import torch
from torch import Tensor, nn

R = TypeVar("R", bound=tuple)


class Disturbed(nn.Module):
    """Changes some weights for the pass that gradients come from, and puts them back.

    Until ``restore`` the weights stay changed, for the backward pass. The optimiser calls it before
    its step. Where an update takes several passes, the first one decides the change.

    Args:
        weights: those that learn.
        seed: seed of what is drawn, which depends on it and on the number of the update alone.
    """

    def __init__(self, weights: Sequence[nn.Parameter], seed: int = 0) -> None:
        super().__init__()
        object.__setattr__(self, "weights", list(weights))  # the model has them already
        self.seed = seed
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._before: list[Tensor] | None = None

    def forward(self, run: Callable[[], R]) -> R:
        """What ``run`` gives where the weights are changed; its first value is the loss ()."""
        if self._before is None:
            gradients = self.gradients(run)
            self._before = [weight.detach().clone() for weight in self.weights]
            with torch.no_grad():
                self.disturb(gradients)
            torch.clear_autocast_cache()  # it has the weights as they were
        return run()

    @torch.no_grad()
    def restore(self, *unused) -> None:
        """Puts the weights back, and makes their gradients what the step needs."""
        if self._before is None:
            return
        for weight, before in zip(self.weights, self._before, strict=True):
            weight.copy_(before)
        self.mend()
        self._before = None
        self.updates += 1
        torch.clear_autocast_cache()

    def gradients(self, run: Callable[[], tuple]) -> list[Tensor]:
        """Gradients of the weights as they are, where the change depends on them; else none."""
        return []

    @abstractmethod
    def disturb(self, gradients: Sequence[Tensor]) -> None:
        """Changes the weights in place."""

    def mend(self) -> None:
        """Changes the gradients in place, once the weights are back; by default nothing."""
        return

    def generator(self) -> numpy.random.Generator:
        """What this update draws by."""
        words = numpy.random.SeedSequence((self.seed, int(self.updates)))
        return numpy.random.default_rng(words)
