"""Self-pinching gates: one learnable threshold t a weight matrix decides which weights stay.

Source: Xu et al., Interspeech 2025 (arXiv 2505.22608): M = sigmoid((W^2 - t^2) / (2 tau)); the
forward pass uses round(M), that is W^2 >= t^2, the backward pass goes through M, to t and to W:
what the loss doesn't need is pinched. Their public code (hanyxu/SASPG-pruning) divides by tau for
single weights; ``temperature_factor`` chooses. Its structured variant puts a unit's score in the
place of W^2: the sum of squares of its weights, brought to the range from 0 to 1 by the least and
the greatest of its site, plus 1e-5; it divides by 10 tau, and tau falls in the first tenth of the
updates and rises again in the others.

Scale: M's gradient is 2 |t| / tau * M (1 - M), so it is 0 at t = 0, and it vanishes for all but the
nearest weights where tau is far below the spread of W^2; where tau is far above it, M is one half
everywhere and all weights are treated alike. W^2 (and t^2) scaled by c behave as before only
if tau is scaled by c too. ``score_scaling: mean`` divides W^2 by its mean, so that one tau suits
every matrix, and the gate then doesn't change when the whole matrix is scaled; ours.

Steps: t has one rate for every matrix and to the last update (code). In a short training that is
too much where the scores lie close together, as those of a site's few heads do, and at the end,
when one step of all thresholds moves the size by more than the target's tolerance. Ours, off by
default: ``steps_in_spreads`` and ``settle_fraction`` shorten each step after the optimiser made it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_prune.config import check_choice, check_range
from espnet_prune.errors import ModelError
from espnet_prune.gates.base import Gate

TEMPERATURE_START = 0.5  # code
TEMPERATURE_END = 0.01  # code
# ours: t starts just below a score, so that rounding can't close that unit; 1 itself in bfloat16
SCALINGS = ("none", "mean", "range")
RANGE_GUARD, RANGE_FLOOR = 1e-8, 1e-5  # code, of the structured variant
JUST_BELOW = 1 - 1e-5
LEAST_THRESHOLD = 1e-6  # ours: the gradient is 0 at t = 0, which would be left never again
PRECISE = (torch.float32, torch.float64)


@dataclass(frozen=True)
class SelfPinchingConfig:
    """Options of a self-pinching gate.

    Attributes:
        temperature_start: tau at the first update (code: 0.5).
        temperature_end: the least tau (code: 0.01).
        falling_fraction: share of the updates after which tau is at its least, along a cosine; it
            then rises again to the first one, along another. Code: 1 for single weights, 0.1 for
            units.
        temperature_factor: what M divides by, in units of tau. Paper: 2; code: 1 for single
            weights, 10 for units.
        score_scaling: ``none`` (code, single weights), ``range`` of the site (code, units), or
            ``mean``: squared scores are divided by their mean (ours).
        initial_drop_rate: t starts at this quantile of the scores, rounded down to whole units, so
            0 or few units closes none (ours, see above; the code's t: the root of the least score).
        steps_in_spreads: whether t's learning rate is in units of the standard deviation of its
            scores' roots, |W| or a unit's own, at the start (ours; the code has one rate for all).
        settle_fraction: share of the updates at the end over which t's steps shrink to 0 along a
            line (ours; the code's: 0).
    """

    temperature_start: float = TEMPERATURE_START
    temperature_end: float = TEMPERATURE_END
    falling_fraction: float = 1.0
    temperature_factor: float = 1.0
    score_scaling: str = "none"
    initial_drop_rate: float = 0.01
    steps_in_spreads: bool = False
    settle_fraction: float = 0.0

    def __post_init__(self) -> None:
        check_range("gate: temperature_start", self.temperature_start, 1e-8, 1e4)
        check_range("gate: temperature_end", self.temperature_end, 1e-8, self.temperature_start)
        check_range("gate: falling_fraction", self.falling_fraction, 1e-6, 1)
        check_range("gate: temperature_factor", self.temperature_factor, 1e-3, 1e3)
        check_choice("gate: score_scaling", self.score_scaling, SCALINGS)
        check_range("gate: initial_drop_rate", self.initial_drop_rate, 0, 0.99)
        check_range("gate: settle_fraction", self.settle_fraction, 0, 1)

    def temperature_at(self, updates: int, total: int) -> float:
        """tau after ``updates`` of ``total`` updates: half a cosine down, and another one up."""
        share, least = min(1.0, updates / max(1, total)), self.falling_fraction
        phase = share / least if share <= least else 1 + (share - least) / (1 - least)
        above = (1 + math.cos(math.pi * phase)) / 2
        return self.temperature_end + (self.temperature_start - self.temperature_end) * above

    def step_at(self, updates: int, total: int) -> float:
        """Share of a step that is made after ``updates`` of ``total`` updates."""
        settling = self.settle_fraction * total
        return min(1.0, max(0, total - updates) / settling) if settling else 1.0


class SelfPinchingGate(Gate):
    """A gate with one ``threshold`` (); its scores belong to someone else.

    Args:
        units: number of units.
        squares: gives the squared scores (units,), differentiable with respect to the weights: W^2
            of single weights, or each unit's own. A bound method, so that a deep copy of gate and
            weights together reads the copy.
        config: its options.
        updates: number of updates over which the temperature falls.

    Raises:
        ModelError: weights whose squares vanish in their precision (float16), or no number.

    Example:
        >>> weight = torch.tensor([0.1, -0.5, 2.0])
        >>> gate = SelfPinchingGate(3, weight.square, SelfPinchingConfig(initial_drop_rate=0.4))
        >>> gate.eval()().tolist()
        [0.0, 1.0, 1.0]
    """

    def __init__(
        self,
        units: int,
        squares: Callable[[], Tensor],
        config: SelfPinchingConfig | None = None,
        updates: int = 1,
    ) -> None:
        super().__init__(units)
        self.config = config or SelfPinchingConfig()
        self.total_updates = updates
        self._squares = squares
        self.threshold = nn.Parameter(self._first_threshold())
        self.register_buffer("temperature", torch.zeros(()))
        self.shortens = self.config.steps_in_spreads or self.config.settle_fraction > 0
        if self.shortens:
            self.register_buffer("before", self.threshold.detach().clone())
            self.register_buffer("unit", self._spread())
            self.register_buffer("step", torch.ones(()))
        self.advance(0)

    @property
    def noise_units(self) -> int:
        """Nothing is random here."""
        return 0

    def squares(self) -> Tensor:
        """The squared scores (units,) as the gate sees them; in float32 where W is bfloat16."""
        squares = self._squares()
        if squares.dtype == torch.bfloat16:
            squares = squares.float()
        if self.config.score_scaling == "mean":
            return squares / squares.detach().mean().clamp_min(LEAST_THRESHOLD**2)
        if self.config.score_scaling == "range":
            least, most = squares.min(), squares.max()
            return (squares - least) / (most - least + RANGE_GUARD) + RANGE_FLOOR
        return squares

    def soft(self) -> Tensor:
        """M (units,): what the backward pass goes through."""
        scale = self.temperature * self.config.temperature_factor
        return torch.sigmoid((self.squares() - self.threshold**2) / scale)

    def probabilities(self) -> Tensor:
        """round(M), (units,), with M's gradient: the size counted is the true one."""
        soft = self.soft()
        return self._open() + (soft - soft.detach())

    def sample(self, noise: Tensor) -> Tensor:
        """The same; nothing is drawn, ``noise`` is empty."""
        return self.probabilities()

    def deterministic(self, shift: float = 0.0) -> Tensor:
        """The units whose squared score times exp(``shift``) reaches t^2."""
        return self._open(shift)

    @torch.no_grad()
    def ratios(self) -> Tensor:
        """Squared score over t^2, (units,); 1 and more is open."""
        return self.squares().detach() / self.threshold.detach() ** 2

    @torch.no_grad()
    def project(self) -> None:
        """Shortens t's step, if configured; keeps t above 0, where its gradient would be lost."""
        if self.shortens:
            self.threshold.lerp_(self.before, 1 - self.unit * self.step)
        self.threshold.clamp_(min=LEAST_THRESHOLD)
        if self.shortens:
            self.before.copy_(self.threshold)

    def advance(self, updates: int) -> None:
        """Lowers the temperature, and the next step's share."""
        self.temperature.fill_(self.config.temperature_at(updates, self.total_updates))
        if self.shortens:
            self.step.fill_(self.config.step_at(updates, self.total_updates))

    @torch.no_grad()
    def _open(self, shift: float = 0.0) -> Tensor:
        """W^2 >= t^2; torch.round would close the weight that equals t."""
        squares = self.squares().detach()
        return (squares * math.exp(shift) >= self.threshold**2).to(squares.dtype)

    @torch.no_grad()
    def _spread(self) -> Tensor:
        """Standard deviation of the scores' roots (); 1 where steps are as the optimiser's."""
        roots = self.squares().detach().sqrt()
        if not self.config.steps_in_spreads:
            return roots.new_ones(())
        return roots.std(correction=0).clamp_min(LEAST_THRESHOLD)

    @torch.no_grad()
    def _first_threshold(self) -> Tensor:
        squares = self.squares().detach()
        if squares.dtype not in PRECISE:
            raise ModelError(
                f"weights in {squares.dtype}: their squares are lost there; prune the model in "
                "float32 (model.float()) and convert it afterwards"
            )
        if not torch.isfinite(squares).all():
            raise ModelError("weights that are not finite can't be ranked; is the model damaged?")
        closed = min(int(self.config.initial_drop_rate * self.units), self.units - 1)
        smallest = torch.kthvalue(squares.flatten(), closed + 1).values
        return (smallest.sqrt() * JUST_BELOW).clamp_min(LEAST_THRESHOLD)
