"""ACIP: the singular values of all matrices are masked by scores that an L1 norm pulls to 0.

"ACIP: Adaptive Compression by Iterative Pruning", Genzel et al. 2025 (arXiv 2502.01717; code
merantix-momentum/acip). Every matrix is U diag(m) S V^T; a mask is open while its score is above 0,
straight through backwards; the L1 norm of the scores has a weight that grows by 1.01 every fourth
update, until the size is reached. The order in which directions vanish then gives any size from the
single run. There the base is frozen and adapters learn; ours: the weights themselves learn, under
distillation, while the directions stay those of the teacher (``sites.low_rank``), and sizes are by
numbers of directions that are smaller than the matrix. What the pressure missed is closed in the
scores' order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.budget import Controller, GrowingPressure
from espnet_prune.config import check_range
from espnet_prune.gates import Gate, StraightThroughGate
from espnet_prune.methods.base import LearningMethod, RankMethod, learned_groups
from espnet_prune.methods.options import MethodConfig
from espnet_prune.sites import Site
from espnet_prune.surgery import GatedModel


@dataclass(frozen=True)
class PressureConfig:
    """The weight of the scores' norm.

    Attributes:
        start: at first, in the mean of what the task's loss pulls at a mask with (ours).
        growth: its factor.
        every: updates from one growth to the next.
    """

    start: float = 0.1
    growth: float = 1.01
    every: int = 4

    def __post_init__(self) -> None:
        check_range("pressure: start", self.start, 1e-12, 1e12)
        check_range("pressure: growth", self.growth, 1, 10)
        check_range("pressure: every", self.every, 1, 1e6)


@dataclass(frozen=True)
class AcipConfig(MethodConfig):
    """Options of masked singular values.

    Attributes:
        pressure: on the scores.
        gate_learning_rate: constant, of the scores, which begin at 1.
    """

    pressure: PressureConfig = field(default_factory=PressureConfig)
    gate_learning_rate: float = 0.05

    def __post_init__(self) -> None:
        check_range("gate_learning_rate", self.gate_learning_rate, 1e-8, 10)


class Acip(RankMethod, LearningMethod):
    """Scores of directions, learned with the weights."""

    Config: ClassVar[type[MethodConfig]] = AcipConfig

    def make_gate(self, site: Site) -> Gate:
        """A score for each direction."""
        return StraightThroughGate(site.units)

    def make_controller(self) -> Controller:
        """The growing weight."""
        pressure = self.config.pressure
        return GrowingPressure(pressure.start, pressure.growth, pressure.every)

    def target_now(self, gated: GatedModel) -> float:
        """The target, from the first update on."""
        return self.target

    def loss(self, gated: GatedModel) -> Tensor:
        """The pressure on the scores' L1 norm, which is here their mean, ()."""
        scores = torch.cat([gate.scores for gate in gated.gates.values()])
        return gated.controller(scores.abs().mean(), self.target)

    def parameter_groups(self, gated: GatedModel) -> list[dict]:
        """The scores alone."""
        return learned_groups(gated, self.config.gate_learning_rate, 1.0)

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The directions with the highest scores, over all matrices."""
        return self._highest(gated, self.order(gated))

    def order(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The scores (units,)."""
        return {name: gated.gate(name).scores.detach().cpu() for name in gated.gate_names()}
