"""Width choice gates: which of a few widths a site gets, by a Gumbel-softmax over them.

Source: the Gumbel-softmax (Jang et al. 2017, arXiv 1611.01144) as architecture search takes it,
such as Hu et al. 2021 (arXiv 2007.08818) for the widths of an acoustic model: candidates share one
set of weights, each is the first so many units, and a relaxed one-hot sample weighs them. Xu et al.
2025 (arXiv 2505.22608) name such a search as their baseline; their public code
(hanyxu/SASPG-pruning) has the seven widths that are the default here, and orders units by their
sums of squares. Temperatures and the start are this project's choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_prune.config import check_range
from espnet_prune.errors import ConfigError
from espnet_prune.gates.base import Gate

EPSILON = 1e-6  # keeps the uniform noise away from 0 and 1
LOGIT_LIMIT = 5.0  # so that a width that was given up can come back, as hard-concrete gates can
PUBLISHED = (0.075, 0.1, 0.125, 0.25, 0.5, 0.75, 1.0)  # code of Xu et al. 2025


@dataclass(frozen=True)
class WidthChoiceConfig:
    """Options of a width choice gate.

    Attributes:
        fractions: shares of a site's units that may be kept, ascending; the last is 1. The default
            is of the code of Xu et al. 2025.
        temperature_start: temperature of the relaxed samples at the first update.
        temperature_end: after the last one, reached exponentially.
        initial_full: probability of the whole width at the start.
    """

    fractions: tuple[float, ...] = PUBLISHED
    temperature_start: float = 1.0
    temperature_end: float = 0.1
    initial_full: float = 0.9

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.fractions, self.fractions[1:], strict=False))
        if len(self.fractions) < 2 or not rising or self.fractions[-1] != 1:
            raise ConfigError(
                f"nas: fractions: {list(self.fractions)}; at least two rising numbers were "
                "expected, of which the last is 1"
            )
        check_range("nas: fractions", self.fractions[0], 1e-6, 1)
        check_range("nas: temperature_start", self.temperature_start, 1e-3, 100)
        check_range("nas: temperature_end", self.temperature_end, 1e-3, self.temperature_start)
        check_range("nas: initial_full", self.initial_full, 1e-3, 0.99)

    def temperature_at(self, updates: int, total: int) -> float:
        """The temperature after ``updates`` of ``total`` updates."""
        share = min(1.0, updates / max(1, total))
        return self.temperature_start * (self.temperature_end / self.temperature_start) ** share


class WidthChoiceGate(Gate):
    """A categorical over widths with learnable ``logits`` (candidates,); the units' order is fixed.

    Args:
        scores: (units,), which order them: a width keeps the highest ones.
        config: its options; widths that round to the same number of units are one candidate, and
            none is 0.
        updates: number of updates over which the temperature falls.

    Example:
        >>> gate = WidthChoiceGate(torch.tensor([1.0, 3.0, 2.0, 0.0])).eval()
        >>> gate().tolist()
        [1.0, 1.0, 1.0, 1.0]
        >>> gate.widest(2).tolist()
        [0.0, 1.0, 1.0, 0.0]
    """

    def __init__(
        self, scores: Tensor, config: WidthChoiceConfig | None = None, updates: int = 1
    ) -> None:
        super().__init__(len(scores))
        self.config = config or WidthChoiceConfig()
        self.total_updates = updates
        order = torch.argsort(scores.detach().cpu(), descending=True, stable=True)
        self.register_buffer("rank", torch.argsort(order))
        widths = _widths(self.units, self.config.fractions)
        self.register_buffer("widths", torch.tensor(widths))
        others, full = len(widths) - 1, self.config.initial_full
        gap = math.log(full * others / (1 - full)) if others else 0.0
        logits = torch.full((len(widths),), -gap / 2)
        logits[-1] = gap / 2
        self.logits = nn.Parameter(logits)
        self.register_buffer("temperature", torch.zeros(()))
        self.advance(0)
        self.project()

    @property
    def noise_units(self) -> int:
        """One number a candidate."""
        return len(self.widths)

    def sample(self, noise: Tensor) -> Tensor:
        """The candidates' masks, weighed by softmax((logits + Gumbel noise) / temperature)."""
        noise = noise.to(self.logits).clamp(EPSILON, 1 - EPSILON)
        gumbel = -torch.log(-torch.log(noise))
        return self._mixed(torch.softmax((self.logits + gumbel) / self.temperature, dim=0))

    def probabilities(self) -> Tensor:
        """P(a unit is within the width), (units,), differentiable."""
        return self._mixed(torch.softmax(self.logits, dim=0))

    @torch.no_grad()
    def moved(self, amount: float) -> Tensor:
        """The same as if the gate were moved."""
        logits = (self.logits + amount * self._steps()).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        return self._mixed(torch.softmax(logits, dim=0))

    @torch.no_grad()
    def move(self, amount: float) -> None:
        """Favours each width over the next smaller one by ``amount``, within the limits."""
        self.logits.add_(amount * self._steps())
        self.project()

    def _steps(self) -> Tensor:
        """0 for the narrowest width, 1 for the next, and so on; centred, as softmax allows."""
        steps = torch.arange(len(self.widths), device=self.logits.device, dtype=self.logits.dtype)
        return steps - steps.mean()

    @torch.no_grad()
    def deterministic(self, shift: float = 0.0) -> Tensor:
        """The most probable width; ``shift`` favours each one over the next smaller one."""
        favoured = self.logits + shift * self._steps()
        return self.widest(int(self.widths[int(favoured.argmax())]))

    def widest(self, number: int) -> Tensor:
        """The mask (units,) of the first ``number`` units."""
        return (self.rank < number).to(self.logits.dtype)

    @torch.no_grad()
    def project(self) -> None:
        """Keeps the logits within their limits."""
        self.logits.clamp_(-LOGIT_LIMIT, LOGIT_LIMIT)

    def advance(self, updates: int) -> None:
        """Lowers the temperature."""
        self.temperature.fill_(self.config.temperature_at(updates, self.total_updates))

    def _mixed(self, weights: Tensor) -> Tensor:
        """Sum over candidates of weight times mask, (units,)."""
        masks = (self.rank[None, :] < self.widths[:, None]).to(weights.dtype)
        return weights @ masks


def _widths(units: int, fractions: Sequence[float]) -> list[int]:
    return sorted({max(1, round(units * fraction)) for fraction in fractions})
