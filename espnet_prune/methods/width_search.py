"""Channel-width search: how wide each site is gets learned, by a Gumbel-softmax over candidates.

The baseline "NAS-based channel pruning with Gumbel-softmax" that Xu et al. 2025 (arXiv 2505.22608)
compare with. From their public code: a site's units are ordered by their sums of squares, once, and
a distribution over seven widths of each site is learned together with the weights. Ours: the
controlled size, the teacher, both those of the other learned masks, and the end: each site takes
its most probable width, and one shift of all distributions, in favour of wider or narrower ones,
brings the sum to the target.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from espnet_prune.budget import fill_to_target, resolve
from espnet_prune.errors import ConfigError
from espnet_prune.gates import FixedGate, Gate, WidthChoiceConfig, WidthChoiceGate
from espnet_prune.methods.base import unit_scores
from espnet_prune.methods.controlled import ControlledConfig, ControlledMethod
from espnet_prune.methods.options import MethodConfig
from espnet_prune.sites import UNIT_KINDS, Site
from espnet_prune.surgery import GatedModel


@dataclass(frozen=True)
class WidthSearchConfig(ControlledConfig):
    """Options of the search of widths.

    Attributes:
        nas: candidates, and how the choice sharpens.
    """

    nas: WidthChoiceConfig = field(default_factory=WidthChoiceConfig)


class WidthSearch(ControlledMethod):
    """Widths, not single units; controller, schedule and losses are those of ``L0Distill``.

    A run gives one size: the choice of widths sharpens over all of its updates.
    """

    Config: ClassVar[type[MethodConfig]] = WidthSearchConfig

    def make_gate(self, site: Site) -> Gate:
        """A choice of widths for a site of units; no width is 0, so branches and blocks stay."""
        if site.kind not in UNIT_KINDS:
            return FixedGate(site.units)
        return WidthChoiceGate(site.magnitudes(), self.config.nas, self.updates)

    def parameter_groups(self, gated: GatedModel) -> list[dict]:
        """Those of ``ControlledMethod``.

        Raises:
            ConfigError: the narrowest widths don't reach the target.
        """
        self._check_reach(gated)
        return super().parameter_groups(gated)

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The most probable widths, shifted alike to the target; single units close what is left.

        The shift fixes the number of units of each site, the order which ones they are.

        Raises:
            ConfigError: the narrowest widths don't reach the target.
        """
        self._check_reach(gated)
        masks = super().masks(gated)
        scores = self.order(gated)
        for name in scores:
            masks[name] = gated.gate(name).widest(int((masks[name] != 0).sum()))
        tolerance = self.config.budget.tolerance
        return fill_to_target(masks, scores, gated.budget, self.target, tolerance)

    def _check_reach(self, gated: GatedModel) -> None:
        names = unit_scores(gated, lambda site: site.name)
        narrowest = {n: gated.gate(n).widest(int(gated.gate(n).widths[0])) for n in names}
        most = float(gated.budget.sparsity(gated.budget.hard(resolve(gated.site_map, narrowest))))
        if most < self.target - self.config.budget.tolerance:
            raise ConfigError(
                f"nas: fractions: {list(self.config.nas.fractions)}: the narrowest widths remove "
                f"{most:.1%}, the target is {self.target:.1%}; add smaller ones, or lower it"
            )

    def order(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """Each unit's place by magnitude, as a share of its site's units; the first ones stay."""

        def score(site: Site) -> Tensor:
            gate = gated.gate(site.name)
            return -gate.rank / gate.units

        return unit_scores(gated, score)
