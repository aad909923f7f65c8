"""What a method is: one published recipe as a composition of sites, gate, budget, controller."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from espnet_prune.budget import (
    Controller,
    align_widths,
    keep_highest,
)
from espnet_prune.config import check_range
from espnet_prune.distill import DistillConfig
from espnet_prune.errors import ConfigError
from espnet_prune.gates import FixedGate, Gate
from espnet_prune.methods.options import (
    DataConfig,
    MethodConfig,
    RefitConfig,
    StudentConfig,
    UnitsConfig,
)
from espnet_prune.sites import RANK, UNIT_KINDS, WEIGHT, DecoderConfig, Site
from espnet_prune.sites.base import (
    CONVOLUTION_CHANNEL,
    FEED_FORWARD_UNIT,
    FRONT_END_CHANNEL,
    ConsumedSite,
    read_once,
)
from espnet_prune.surgery import GatedModel

MAX_SEED = 2**63 - 1  # what torch's generators take
ALIGNED_KINDS = (FEED_FORWARD_UNIT, CONVOLUTION_CHANNEL, FRONT_END_CHANNEL)


class Method(ABC):
    """One way to make a model smaller.

    Args:
        target: wanted sparsity, 0 < target < 1, of what the gated sites hold.
        seed: seed of everything random in it.
        config: its options.
        updates: number of updates of the pruning stage, for schedules.

    Attributes:
        learns_masks: whether masks are trained; the others choose them at once, and the updates
            so saved go to finetuning.
        from_scratch: whether the weights are drawn anew after the cut.
        emits_ladder: whether one run can give several sizes.
        needs_units: whether it can't do without sites of units.
        Config: the dataclass of its options.
        target_range: least and largest target that it takes.
    """

    target_range: ClassVar[tuple[float, float]] = (1e-6, 1 - 1e-6)
    learns_masks: ClassVar[bool] = False
    from_scratch: ClassVar[bool] = False
    emits_ladder: ClassVar[bool] = False
    needs_units: ClassVar[bool] = True
    Config: ClassVar[type[MethodConfig]] = UnitsConfig

    def __init__(
        self,
        target: float = 0.5,
        seed: int = 0,
        config: MethodConfig | None = None,
        updates: int = 1000,
    ) -> None:
        check_range("target", target, *self.target_range)
        check_range("seed", seed, 0, MAX_SEED)
        self.target = target
        self.seed = seed
        self.config: Any = self.Config() if config is None else config  # of the class's own type
        if not isinstance(self.config, self.Config):
            raise ConfigError(
                f"config: {type(self.config).__name__}: {type(self).__name__} reads a "
                f"{self.Config.__name__}"
            )
        self.updates = updates
        if self.needs_units and not set(self.site_kinds) & set(UNIT_KINDS):
            raise ConfigError(self._no_units())
        if self.config.budget.align > 1 and not set(self.site_kinds) & set(ALIGNED_KINDS):
            raise ConfigError(
                f"budget: align: {self.config.budget.align}: none of the sites of "
                f"{type(self).__name__}, {list(self.site_kinds)}, has a width to align; add one of "
                f"{ALIGNED_KINDS} to `sites`, or leave align at 1 for it"
            )
        if self.from_scratch and self.refit is not None:
            raise ConfigError(
                f"refit: {type(self).__name__} draws its weights anew after the cut; leave it out"
            )
        self.check()

    def _no_units(self) -> str:
        return (
            f"sites: {list(self.site_kinds)}: {type(self).__name__} chooses among units; name at "
            f"least one of {', '.join(UNIT_KINDS)}"
        )

    def check(self) -> None:
        """ConfigError where options don't go together; called by the constructor."""
        return

    @property
    def site_kinds(self) -> Sequence[str]:
        """Kinds of sites that get a gate."""
        return self.config.sites

    @property
    def decoder(self) -> DecoderConfig | None:
        """What the attention decoder is counted for; None where the encoder alone is pruned."""
        return self.config.decoder

    @property
    def refit(self) -> RefitConfig | None:
        """How weights are solved anew at the cut, if they are."""
        return getattr(self.config, "refit", None)

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

    @property
    def student(self) -> StudentConfig:
        """How the student is trained; random weights have no statistics to keep."""
        if self.from_scratch:
            return replace(self.config.student, norm_statistics="updated")
        return self.config.student

    @property
    def epochs_from_finetuning(self) -> int:
        """Epochs that the pruning stage takes over from finetuning."""
        return 0

    @property
    def calibration_utterances(self) -> int:
        """Training utterances that a ``DataMethod`` looks at; 0 for a method that needs none."""
        return 0

    def make_gate(self, site: Site) -> Gate:
        """A gate for a site; one that only holds a mask, unless the method learns masks."""
        return FixedGate(site.units)

    def make_controller(self) -> Controller | None:
        """The controller of the learned size, if any."""
        return None

    @abstractmethod
    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The resolved hard masks (units,) of all sites, at the target."""

    def order(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """Scores (units,) of the units of every gated site; a narrower site loses the lowest.

        By default how probably a unit is kept, or its magnitude where masks aren't learned.
        """
        if not self.learns_masks:
            return unit_scores(gated, Site.magnitudes)
        return unit_scores(gated, lambda site: gated.gate(site.name).probabilities().detach())

    def aligned(
        self, gated: GatedModel, masks: Mapping[str, Tensor], target: float | None = None
    ) -> Mapping[str, Tensor]:
        """The masks with the widths that ``budget: align`` asks for, at the target again.

        Args:
            gated: the gated model.
            masks: what ``masks`` gave.
            target: target of a rung; by default the method's own.

        Raises:
            ConfigError: none of the gated sites has a width to align.
            TargetMissedError: such widths come not near enough to the target.
        """
        if self.config.budget.align == 1:
            return masks
        return self._aligned(gated, masks, self.order(gated), target)

    def _aligned(
        self,
        gated: GatedModel,
        masks: Mapping[str, Tensor],
        order: Mapping[str, Tensor],
        target: float | None = None,
    ) -> Mapping[str, Tensor]:
        """The same by other scores than those of ``order``."""
        multiple = self.config.budget.align
        if multiple == 1:
            return masks
        sites = gated.site_map.sites
        scores = {n: s for n, s in order.items() if sites[n].kind in ALIGNED_KINDS}
        if not scores:
            raise ConfigError(
                f"budget: align: {multiple}: none of the pruned sites has a width to align; add "
                f"one of {ALIGNED_KINDS} to `sites`, or leave align at 1"
            )
        target = self.target if target is None else target
        tolerance = self.config.budget.tolerance
        return align_widths(masks, scores, gated.budget, target, tolerance, multiple)

    def _highest(
        self,
        gated: GatedModel,
        scores: Mapping[str, Tensor],
        fixed: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """``keep_highest`` at the target, within the tolerance of the config."""
        tolerance = self.config.budget.tolerance
        return keep_highest(scores, gated.budget, self.target, tolerance, fixed)

    def rewrite(self, gated: GatedModel, masks: Mapping[str, Tensor]) -> None:
        """Changes the kept units' weights, in place, before the cut; by default nothing."""
        return


Pass = Callable[[], Tensor]


class DataMethod(Method):
    """A method that learns nothing, but looks at data when it chooses its masks.

    Example::

        passes = [lambda batch=batch: loss_of(gated(**batch)) for batch in batches]
        small = espnet_prune.cut(gated, method.masks(gated, passes))
    """

    Config: ClassVar[type[MethodConfig]] = DataConfig

    @property
    def calibration_utterances(self) -> int:
        """By config."""
        return self.config.calibration.utterances

    @abstractmethod
    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """The resolved hard masks (units,) of all sites, at the target.

        Args:
            gated: the gated model, in evaluation mode.
            passes: each runs the gated model on one utterance and returns its loss ().

        Raises:
            ConfigError: no passes, though it needs them.
        """

    def compensate(
        self, gated: GatedModel, masks: Mapping[str, Tensor], passes: Sequence[Pass]
    ) -> None:
        """Changes weights in place by data, once the masks are chosen; by default nothing.

        Args:
            gated: the gated model, in evaluation mode.
            masks: what ``masks`` gave, aligned.
            passes: those that it got.
        """
        return

    def check_passes(self, passes: Sequence[Pass]) -> None:
        """ConfigError where a method that needs data got none."""
        if self.calibration_utterances and not passes:
            raise ConfigError(
                f"{type(self).__name__} needs calibration data: give `masks` at least one pass, a "
                "function that runs the gated model on an utterance and returns its loss"
            )


class OneKindMethod(Method):
    """A method that gates one kind of site, in the encoder alone, and counts parameters alone.

    Attributes:
        kind: kind of the sites.
        not_counted: what an error says of a budget in another measure than parameters.

    Raises:
        ConfigError: a budget in MACs.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    needs_units: ClassVar[bool] = False
    kind: ClassVar[str]
    not_counted: ClassVar[str]

    @property
    def site_kinds(self) -> Sequence[str]:
        """The one kind."""
        return (self.kind,)

    @property
    def decoder(self) -> DecoderConfig | None:
        """The encoder alone is pruned."""
        return None

    def check(self) -> None:
        """ConfigError for MACs."""
        if self.measure != "parameters":
            problem = self.not_counted.format(self.measure)
            raise ConfigError(f"budget: measure: {problem}; measure parameters")


class WeightMethod(OneKindMethod):
    """A method that chooses among single weights, which keep their tensors' shapes."""

    kind = WEIGHT
    not_counted = "single weights save no {}"


class RankMethod(OneKindMethod):
    """A method that makes a matrix two of low rank, and chooses among directions."""

    kind = RANK
    not_counted = "{} of low-rank layers aren't counted"


class LearningMethod(Method):
    """A method that learns its masks together with the weights."""

    learns_masks: ClassVar[bool] = True

    @abstractmethod
    def target_now(self, gated: GatedModel) -> float:
        """The target sparsity of this update."""

    @abstractmethod
    def loss(self, gated: GatedModel) -> Tensor:
        """The size term of this update, (): add it to the task's loss."""

    @abstractmethod
    def parameter_groups(self, gated: GatedModel) -> list[dict]:
        """Optimiser groups of gates and multipliers, in this order; the latter ascend."""

    @property
    def order_utterances(self) -> int:
        """Training utterances that ``begin`` looks at; 0 for a method that needs none."""
        return 0

    def begin(self, gated: GatedModel, scores: Mapping[str, Tensor] | None = None) -> None:
        """Prepares the gates before the first update; by default they stay as they were made.

        Args:
            gated: the gated model.
            scores: what ``order_scores`` gave.
        """

    def order_scores(self, gated: GatedModel, passes: Sequence[Pass]) -> dict[str, Tensor]:
        """Scores (units,) of the units of every gated site, by data.

        Args:
            gated: the gated model, in evaluation mode.
            passes: each runs the gated model on one utterance and returns its loss ().
        """
        return {}


def learned_groups(gated: GatedModel, gates_rate: float, multipliers_rate: float) -> list[dict]:
    """Optimiser groups of gates and, where there are any, multipliers.

    Nothing decays, multipliers ascend.
    """
    controller = gated.controller
    gates = {"params": list(gated.gates.parameters()), "lr": gates_rate}
    multipliers = {
        "params": [] if controller is None else list(controller.parameters()),
        "lr": multipliers_rate,
        "maximize": True,
    }
    return [{**g, "weight_decay": 0.0} for g in (gates, multipliers) if g["params"]]


def labels_only(distillation: DistillConfig) -> DistillConfig:
    """The same without a teacher: the labels' loss alone."""
    return replace(
        distillation, label_weight=1.0, layer_weight=0.0, ctc_weight=0.0, attention_weight=0.0
    )


def unit_scores(gated: GatedModel, score: Callable[[Site], Tensor]) -> dict[str, Tensor]:
    """``score(site)`` for every gated site of units; branches and blocks follow from them."""
    sites = gated.site_map.sites
    names = [name for name in gated.gate_names() if sites[name].kind in (*UNIT_KINDS, RANK)]
    return {name: score(sites[name]) for name in names}


def unit_sites(gated: GatedModel) -> list[ConsumedSite]:
    """The gated sites of units, each read by one layer alone.

    Raises:
        ModelError: units that two layers read.
    """
    return list(unit_scores(gated, read_once).values())
