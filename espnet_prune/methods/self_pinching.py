"""P2: self-pinching gates, one pass that trains the weights and decides which of them stay.

"Effective and Efficient One-pass Compression of Speech Foundation Models Using Sparsity-aware
Self-pinching Gates", Xu et al., Interspeech 2025 (arXiv 2505.22608). Published: one learnable
threshold t a weight matrix, M = sigmoid((W^2 - t^2) / (2 tau)), rounded in the forward pass and
soft in the backward pass, joined with the training on labels in one stage. From the authors'
public code: tau instead of 2 tau, its cosine from 0.5 to 0.01, the band of the size term, and the
structured variant, which gates a unit by its score.

``SelfPinchingPublished`` is that variant as the code has it (see ``gates.self_pinching``). Ours,
because not published or of other models: ``SelfPinching``'s score (mean square of all the unit's
weights, so that heads, feed-forward units and convolution channels of a Conformer can be compared),
where its t starts, one threshold a site, and, in both, what is done at the end: where the
thresholds missed the target, all of them are scaled by one factor; single weights go by the same
share of every matrix instead.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from espnet_prune.budget import (
    BAND_STRENGTH_UNITS,
    Controller,
    ControllerConfig,
    TargetSchedule,
)
from espnet_prune.config import check_choice, check_range
from espnet_prune.distill import DistillConfig
from espnet_prune.errors import ConfigError
from espnet_prune.gates import FixedGate, Gate, SelfPinchingConfig, SelfPinchingGate
from espnet_prune.methods.base import LearningMethod, labels_only, learned_groups
from espnet_prune.methods.options import MethodConfig, UnitsConfig
from espnet_prune.sites import UNIT_KINDS, Site
from espnet_prune.surgery import GatedModel

logger = logging.getLogger(__name__)
ADAM_SECOND_BETA = 0.999  # Adam's own
# A projected constraint never pushes back, and one threshold moves a whole site: it overshoots.
PINCHING_CONTROLLERS = ("band", "lagrangian")


@dataclass(frozen=True)
class PinchingControllerConfig(ControllerConfig):
    """The same options, with the authors' band where no kind is named."""

    kind: str = "band"


@dataclass(frozen=True)
class PinchingConfig:
    """Options of the self-pinching methods alone (Xu et al. 2025).

    Attributes:
        gate: options of the thresholds.
        controller: controller of the size; the authors' ``band`` by default, or ``lagrangian``.
        learning_rate: learning rate of the thresholds (code: AdamW, 2e-4 for everything).
        momentum: Adam's first beta, for the thresholds; 0.9 is Adam's own. Less overshoots less,
            which counts where there are few updates (ours).
        distill: whether the uncompressed model teaches too (ours; the authors' code has
            labels alone).
        epochs_from_finetuning: how many epochs the one pass takes over from finetuning. With all of
            them there is no finetuning any more, as in the paper, and the number of updates is
            still that of the other systems.
    """

    gate: SelfPinchingConfig = field(default_factory=SelfPinchingConfig)
    controller: PinchingControllerConfig = field(default_factory=PinchingControllerConfig)
    learning_rate: float = 2e-4
    momentum: float = 0.9
    distill: bool = False
    epochs_from_finetuning: int = 0

    def __post_init__(self) -> None:
        check_choice("pinching: controller: kind", self.controller.kind, PINCHING_CONTROLLERS)
        check_range("pinching: learning_rate", self.learning_rate, 1e-8, 10)
        check_range("pinching: momentum", self.momentum, 0, 0.999)
        check_range("pinching: epochs_from_finetuning", self.epochs_from_finetuning, 0, 1e6)


@dataclass(frozen=True)
class SelfPinchingMethodConfig(UnitsConfig):
    """Options of self-pinching gates on units.

    Attributes:
        pinching: gates, controller and the one pass.
        warmup_fraction: share of the updates over which the target rises, under a Lagrangian.
    """

    pinching: PinchingConfig = field(default_factory=PinchingConfig)
    warmup_fraction: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("warmup_fraction", self.warmup_fraction, 0, 1)


class SelfPinching(LearningMethod):
    """The structured variant: units of a site stay while their score reaches the site's threshold.

    Raises:
        ConfigError: the band with a budget in MACs; its lambda is a loss for each parameter. Sites
            without units.

    Example:
        method = SelfPinching(target=0.5, updates=2000)
        gated = espnet_prune.inject(model, method)
        loss = task_loss + method.loss(gated)  # and gated.after_update() after each step
        small = espnet_prune.cut(gated, method.masks(gated))
    """

    band_strength: ClassVar[float] = BAND_STRENGTH_UNITS
    Config: ClassVar[type[MethodConfig]] = SelfPinchingMethodConfig

    @property
    def options(self) -> PinchingConfig:
        """Those of the self-pinching methods alone."""
        return self.config.pinching

    def check(self) -> None:
        """ConfigError where options don't go together."""
        self.options.controller.check_measure("pinching: controller", self.measure)

    def make_gate(self, site: Site) -> Gate:
        """A threshold for a site of units; a branch goes when all of its units are gone."""
        if site.kind not in UNIT_KINDS:
            return FixedGate(site.units)
        return SelfPinchingGate(site.units, site.mean_squares, self.options.gate, self.updates)

    def make_controller(self) -> Controller:
        """The authors' band or a Lagrangian, by config."""
        return self.options.controller.build(self.band_strength)

    @property
    def distillation(self) -> DistillConfig:
        """The labels' loss alone, unless the config asks for a teacher."""
        chosen = self.config.distillation
        return chosen if self.options.distill else labels_only(chosen)

    @property
    def epochs_from_finetuning(self) -> int:
        """By config; all of them make it the paper's one pass."""
        return self.options.epochs_from_finetuning

    def target_now(self, gated: GatedModel) -> float:
        """The target itself under the band, whose push is constant; else it rises (CoFi)."""
        if self.options.controller.kind == "band":
            return self.target
        schedule = TargetSchedule(self.target, round(self.config.warmup_fraction * self.updates))
        return schedule.at(int(gated.updates), float(gated.start_sparsity))

    def loss(self, gated: GatedModel) -> Tensor:
        """The size term of this update, (), from the rounded gates: add it to the task's loss."""
        return gated.controller(gated.expected_sparsity(), self.target_now(gated))

    def parameter_groups(self, gated: GatedModel) -> list[dict]:
        """Optimiser groups of the thresholds and, where the controller has any, multipliers.

        Raises:
            ConfigError: the model has none of the sites that thresholds are for.
        """
        if not any(isinstance(gate, SelfPinchingGate) for gate in gated.gates.values()):
            raise ConfigError(f"{self._no_units()} that this model has")
        rate = self.options.controller.multipliers_rate
        gates, *multipliers = learned_groups(gated, self.options.learning_rate, rate)
        return [{**gates, "betas": (self.options.momentum, ADAM_SECOND_BETA)}, *multipliers]

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """W^2 >= t^2, or W^2 >= c t^2 with one c for all where that misses the target."""
        masks = gated.hard_masks()
        learned = float(gated.budget.sparsity(gated.budget.hard(masks)))
        gap = abs(learned - self.target)
        if gap <= self.config.budget.tolerance:
            return masks
        logger.warning(
            "the thresholds reached a sparsity of %.2f%%, %.2f points from the target; the cut "
            "closes that without training. If it is much, train longer, or raise "
            "pinching.learning_rate, or pinching.controller.band_strength or band_growth",
            100 * learned,
            100 * gap,
        )
        return self.masks_at_target(gated)

    def order(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """Squared scores beside their site's threshold."""
        gates = {name: gated.gate(name) for name in gated.gate_names()}
        return {n: g.ratios() for n, g in gates.items() if isinstance(g, SelfPinchingGate)}

    def masks_at_target(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The masks of all thresholds scaled alike; finer units fill what a coarse one leaves."""
        return self._highest(gated, self.order(gated))

    def _no_units(self) -> str:
        return (
            f"sites: {list(self.site_kinds)}: none has units that a threshold could decide on "
            "(branches and blocks go when all of their units are gone); add at least one of "
            f"{list(UNIT_KINDS)}"
        )


# The structured variant of the public code: what of a gate isn't as for single weights.
PUBLISHED_UNITS = {
    "score_scaling": "range",
    "temperature_factor": 10.0,
    "falling_fraction": 0.1,
    "initial_drop_rate": 0.0,
}


class SelfPinchingPublished(SelfPinching):
    """The structured variant of the authors' code: gates as there, whatever else the config says.

    Its ladder of keep ratios (1, 0.75, 0.5, 0.25, 0.125), from which the code takes the final
    sizes, is left out: the target is met as by ``SelfPinching``.
    """

    def make_gate(self, site: Site) -> Gate:
        """A threshold for a site of units, started at the least score."""
        if site.kind not in UNIT_KINDS:
            return FixedGate(site.units)
        gate = replace(self.options.gate, **PUBLISHED_UNITS)
        return SelfPinchingGate(site.units, site.mean_squares, gate, self.updates)
