"""What methods share whose gates' expected size a controller holds while the weights learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from espnet_prune.budget import (
    Controller,
    ControllerConfig,
    LadderSchedule,
    Rung,
    fill_to_target,
)
from espnet_prune.config import check_range
from espnet_prune.errors import ConfigError
from espnet_prune.methods.base import LearningMethod, learned_groups
from espnet_prune.methods.options import MethodConfig, UnitsConfig
from espnet_prune.sites import UNIT_KINDS
from espnet_prune.surgery import GatedModel


@dataclass(frozen=True)
class ControlledConfig(UnitsConfig):
    """Options of learned gates under a controller.

    Attributes:
        controller: controller of the learned size.
        warmup_fraction: share of the updates over which the target rises.
        gate_learning_rate: constant, of the gates' parameters (CoFi's code: 0.01 to 0.1).
    """

    controller: ControllerConfig = field(default_factory=ControllerConfig)
    warmup_fraction: float = 0.25
    gate_learning_rate: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("warmup_fraction", self.warmup_fraction, 0, 1)
        check_range("gate_learning_rate", self.gate_learning_rate, 1e-8, 10)


class ControlledMethod(LearningMethod):
    """Controller, schedule, ladder, and how what the gates missed is closed.

    Args:
        target: wanted sparsity.
        seed: seed of the gates' noise.
        config: its options.
        updates: number of updates of the whole run.
        ladder: smaller sizes that the run passes on its way; the model is any of them when the
            updates of that rung are made, with the weights and gates of that moment.

    Raises:
        ConfigError: the ladder doesn't rise to the target, or the method takes none; the band with
            a budget in MACs.
    """

    Config: ClassVar[type[MethodConfig]] = ControlledConfig

    def __init__(
        self,
        target: float = 0.5,
        seed: int = 0,
        config: MethodConfig | None = None,
        updates: int = 1000,
        ladder: Sequence[Rung] = (),
    ) -> None:
        self.ladder = tuple(ladder)  # which ``check`` looks at
        super().__init__(target, seed, config, updates)
        rungs = (*ladder, Rung(target, updates))
        self.schedule = LadderSchedule(rungs, self.config.warmup_fraction)

    def check(self) -> None:
        """ConfigError for a controller that doesn't take the measure, or a ladder of one size."""
        self.config.controller.check_measure("controller", self.measure)
        if self.ladder and not self.emits_ladder:
            raise ConfigError(
                f"ladder: a run of {type(self).__name__} gives one size; leave it out"
            )

    def make_controller(self) -> Controller:
        """The Lagrangian, or the projected constraint, by config."""
        return self.config.controller.build()

    def target_now(self, gated: GatedModel) -> float:
        """The target of this update, from the sparsity measured when the gates were injected."""
        return self.schedule.at(int(gated.updates), float(gated.start_sparsity))

    def loss(self, gated: GatedModel) -> Tensor:
        """The size term of this update, (): add it to the task's loss.

        The expected sparsity is 1 - E[kept] / prunable, with P(z != 0) for each gate.
        """
        return gated.controller(gated.expected_sparsity(), self.target_now(gated))

    def parameter_groups(self, gated: GatedModel) -> list[dict]:
        """Optimiser groups of gates and multipliers; the latter ascend."""
        config = self.config
        return learned_groups(gated, config.gate_learning_rate, config.controller.multipliers_rate)

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """FLOP's deterministic masks, shifted all alike where they are off the target."""
        return self.masks_at(gated, self.target)

    def masks_at(self, gated: GatedModel, target: float) -> Mapping[str, Tensor]:
        """The same for another target, such as that of a rung."""
        masks = gated.hard_masks()
        gap = abs(float(gated.budget.sparsity(gated.budget.hard(masks))) - target)
        if gap <= self.config.budget.tolerance:
            return masks
        shifted = gated.hard_masks_at(target)[0]
        scores, sites = self.order(gated), gated.site_map.sites
        fixed = {n: shifted[n] for n in gated.gate_names() if sites[n].kind not in UNIT_KINDS}
        tolerance = self.config.budget.tolerance
        filled = fill_to_target(shifted, scores, gated.budget, target, tolerance, fixed)
        for name in scores:  # a unit that is back has the value that it was learned with
            back = (filled[name] != 0) & (shifted[name] == 0) & (masks[name] != 0)
            filled[name][back] = masks[name][back]
        return filled
