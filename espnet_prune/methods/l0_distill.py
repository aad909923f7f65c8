"""P1: masks on every Conformer module, learned with L0 regularisation and distilled.

"Accurate and Structured Pruning for Efficient Automatic Speech Recognition", Jiang et al.,
Interspeech 2023 (arXiv 2305.19549). Published: binary masks say for each module whether it is
kept; they are learned with L0 regularisation; layerwise distillation carries knowledge from the
unpruned model. Not published, so this project's choice after CoFi (arXiv 2204.00408): the list of
masks, the hard-concrete constants, the Lagrangian, the schedule, the losses' weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.distill import DistillConfig
from espnet_prune.errors import ConfigError
from espnet_prune.gates import Gate, HardConcreteConfig, HardConcreteGate
from espnet_prune.methods.base import Pass, labels_only, unit_scores
from espnet_prune.methods.controlled import ControlledConfig, ControlledMethod
from espnet_prune.methods.fisher import fisher_scores, mask_gradients, unit_costs
from espnet_prune.methods.options import CalibrationConfig, MethodConfig
from espnet_prune.sites import Site
from espnet_prune.surgery import GatedModel


@dataclass(frozen=True)
class L0Config(ControlledConfig):
    """Options of hard-concrete gates.

    Attributes:
        gate: its constants, and where gates begin.
        calibration: what is seen where they begin in an order that comes of data.
    """

    gate: HardConcreteConfig = field(default_factory=HardConcreteConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_fraction + self.gate.settle_fraction > 1:
            raise ConfigError(
                f"warmup_fraction: {self.warmup_fraction}: the target would still rise when the "
                f"gates have settled (gate: settle_fraction: {self.gate.settle_fraction}); lower "
                "one of them until their sum is at most 1"
            )


class L0Distill(ControlledMethod):
    """Hard-concrete gates, a controlled size, layerwise and output distillation.

    Args:
        target: wanted sparsity.
        seed: seed of the gates' noise.
        config: its options.
        updates: number of updates of the whole run.
        ladder: smaller sizes that the run passes on its way; the model is any of them when the
            updates of that rung are made, with the weights and gates of that moment.

    Raises:
        ConfigError: the ladder doesn't rise to the target, the method takes none, or its gates
            are to settle; the band with a budget in MACs.

    Example:
        method = L0Distill(target=0.5, updates=2000)
        gated = espnet_prune.inject(model, method)
        loss = task_loss + method.loss(gated)  # and gated.after_update() after each step
        small = espnet_prune.cut(gated.eval(), method.masks(gated))
    """

    emits_ladder: ClassVar[bool] = True
    needs_units: ClassVar[bool] = False
    Config: ClassVar[type[MethodConfig]] = L0Config

    def check(self) -> None:
        """ConfigError where the controller doesn't take the measure, or a ladder's gates settle."""
        super().check()
        if self.ladder and self.config.gate.settle_fraction:
            raise ConfigError(
                f"gate: settle_fraction: {self.config.gate.settle_fraction}: gates that settle "
                "stay as they are, a ladder's go on; set it to 0, or leave the ladder out"
            )

    def make_gate(self, site: Site) -> Gate:
        """One learnable log_alpha a unit; a whole block can't be kept by half."""
        block = site.kind == "block"
        return HardConcreteGate(site.units, self.config.gate, block, self.updates)

    @property
    def order_utterances(self) -> int:
        """By config, where the gates begin in the order of the Fisher information."""
        return self.config.calibration.utterances if self.config.gate.order == "fisher" else 0

    def order_scores(self, gated: GatedModel, passes: Sequence[Pass]) -> dict[str, Tensor]:
        """Fisher information of each unit for what it costs (``methods.fisher``)."""
        return fisher_scores(gated, mask_gradients(gated, passes))

    def begin(self, gated: GatedModel, scores: Mapping[str, Tensor] | None = None) -> None:
        """Starts the gates of units in the order that ``gate: order`` names.

        A unit's place is the share of the whole size that goes before it. Branches and blocks begin
        behind all units.

        Raises:
            ConfigError: the order comes of data, and no scores of it are given.
        """
        order = self.config.gate.order
        if order == "none":
            return
        if order == "magnitude":
            scores = unit_scores(gated, Site.magnitudes)
        elif not scores:
            raise ConfigError(
                f"gate: order: {order}: it needs scores; give begin those of order_scores"
            )
        places = unit_places(scores, unit_costs(gated.budget, list(scores)))
        for name in gated.gate_names():
            gate = gated.gate(name)
            gate.begin(places.get(name, torch.ones(gate.units)))
        with torch.no_grad():
            gated.start_sparsity.copy_(gated.expected_sparsity())


def unit_places(scores: Mapping[str, Tensor], costs: Mapping[str, int]) -> dict[str, Tensor]:
    """Each unit's place among all, 0 for the lowest score and nearly 1 for the highest.

    Args:
        scores: (units,) by site.
        costs: cost of one unit by site; a unit's place is the share of the sum that stands before
            it.
    """
    sizes = torch.cat([torch.full((len(s),), float(costs[n])) for n, s in scores.items()])
    order = torch.argsort(torch.cat([s.double().cpu() for s in scores.values()]), stable=True)
    before = sizes[order].double().cumsum(0) - sizes[order]
    places = torch.empty_like(before)
    places[order] = before / sizes.sum()
    return dict(zip(scores, places.split([len(s) for s in scores.values()]), strict=True))


class L0(L0Distill):
    """The same without a teacher: learned masks and the labels' loss alone."""

    @property
    def distillation(self) -> DistillConfig:
        """Labels only."""
        return labels_only(self.config.distillation)
