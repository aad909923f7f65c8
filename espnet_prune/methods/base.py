"""What a method is: one published recipe as a composition of sites, gate, budget, controller."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from espnet_prune.budget import MEASURES, Controller, ControllerConfig
from espnet_prune.config import check_choice, check_range
from espnet_prune.distill import DistillConfig
from espnet_prune.gates import FixedGate, Gate, HardConcreteConfig
from espnet_prune.sites import KINDS, UNIT_KINDS, Site
from espnet_prune.surgery import GatedModel


@dataclass(frozen=True)
class BudgetConfig:
    """What is counted, and how near the target must be.

    Attributes:
        measure: ``parameters`` or ``macs``.
        reference_seconds: length of the utterance that MACs are counted for.
        tolerance: allowed distance of the reached hard sparsity from the target.
    """

    measure: str = "parameters"
    reference_seconds: float = 10.0
    tolerance: float = 0.005

    def __post_init__(self) -> None:
        check_choice("budget: measure", self.measure, MEASURES)
        check_range("budget: reference_seconds", self.reference_seconds, 0.5, 600)
        check_range("budget: tolerance", self.tolerance, 0, 1)


@dataclass(frozen=True)
class ClipConfig:
    """Largest gradient norm of each group, each clipped apart from the others."""

    weights: float = 5.0
    gates: float = 1.0
    multipliers: float = 1.0

    def __post_init__(self) -> None:
        for name in ("weights", "gates", "multipliers"):
            check_range(f"clip: {name}", getattr(self, name), 1e-6, 1e9)


@dataclass(frozen=True)
class MethodConfig:
    """Options of every method; what a method doesn't learn, it doesn't read.

    Attributes:
        sites: kinds of sites that get a gate; their units are the sparsity's denominator.
        gate: of learned gates.
        budget: measure and tolerance.
        controller: of the learned size.
        warmup_fraction: share of the updates over which the target rises.
        gate_learning_rate: constant, of the gates' parameters (CoFi's code: 0.01 to 0.1).
        clip: gradient norms.
        distillation: of the pruning stage and of finetuning.
    """

    sites: tuple[str, ...] = (*UNIT_KINDS, "branch")
    gate: HardConcreteConfig = field(default_factory=HardConcreteConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    warmup_fraction: float = 0.25
    gate_learning_rate: float = 0.05
    clip: ClipConfig = field(default_factory=ClipConfig)
    distillation: DistillConfig = field(default_factory=DistillConfig)

    def __post_init__(self) -> None:
        for kind in self.sites:
            check_choice("sites", kind, KINDS)
        check_range("warmup_fraction", self.warmup_fraction, 0, 1)
        check_range("gate_learning_rate", self.gate_learning_rate, 1e-8, 10)


class Method(ABC):
    """One way to make a model smaller.

    Args:
        target: wanted sparsity, 0 < target < 1, of what the gated sites hold.
        seed: of everything random in it.
        config: its options.
        updates: number of updates of the pruning stage, for schedules.

    Attributes:
        learns_masks: whether masks are trained; the others choose them at once, and the updates
            so saved go to finetuning.
        from_scratch: whether the weights are drawn anew after the cut.
    """

    learns_masks: ClassVar[bool] = False
    from_scratch: ClassVar[bool] = False

    def __init__(
        self,
        target: float = 0.5,
        seed: int = 0,
        config: MethodConfig | None = None,
        updates: int = 1000,
    ) -> None:
        check_range("target", target, 1e-6, 1 - 1e-6)
        self.target = target
        self.seed = seed
        self.config = config or MethodConfig()
        self.updates = updates

    @property
    def site_kinds(self) -> Sequence[str]:
        """Kinds of sites that get a gate."""
        return self.config.sites

    @property
    def measure(self) -> str:
        """What is counted."""
        return self.config.budget.measure

    @property
    def reference_seconds(self) -> float:
        """Length of the utterance that MACs are counted for."""
        return self.config.budget.reference_seconds

    @property
    def distillation(self) -> DistillConfig:
        """How the uncompressed model teaches."""
        return self.config.distillation

    def make_gate(self, site: Site) -> Gate:
        """A gate for a site; one that only holds a mask, unless the method learns masks."""
        return FixedGate(site.units)

    def make_controller(self) -> Controller | None:
        """The controller of the learned size, if any."""
        return None

    @abstractmethod
    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The resolved hard masks (units,) of all sites, at the target."""


def unit_scores(gated: GatedModel, score) -> dict[str, Tensor]:
    """``score(site)`` for every gated site of units; branches and blocks follow from them."""
    sites = gated.site_map.sites
    names = [name for name in gated.gate_names() if sites[name].kind in UNIT_KINDS]
    return {name: score(sites[name]) for name in names}
