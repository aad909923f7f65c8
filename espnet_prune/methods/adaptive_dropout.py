"""Adaptive dropout: units are dropped in training as often as is learned for each of them.

"Adaptive Dropout for Pruning Conformers", Kamo et al. 2024 (arXiv 2412.04836). Published: retention
probabilities of the feed-forward units, of the query and value units of attention, and of the
convolutions' inputs; with them 54% fewer parameters at about 1% better WER on LibriSpeech. Ours:
the units are those of the configuration's sites, heads among them; how often all together stay is
held at the target by the controller, as for every learned mask here.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from espnet_prune.gates import Gate, RetentionConfig, RetentionGate
from espnet_prune.methods.controlled import ControlledConfig, ControlledMethod
from espnet_prune.methods.options import MethodConfig
from espnet_prune.sites import UNIT_KINDS, Site


@dataclass(frozen=True)
class AdaptiveDropoutConfig(ControlledConfig):
    """Options of learned retention.

    Attributes:
        retention: options of the gates that retain units.
    """

    retention: RetentionConfig = field(default_factory=RetentionConfig)
    sites: tuple[str, ...] = UNIT_KINDS


class AdaptiveDropout(ControlledMethod):
    """Retention gates, a controlled size, distilled."""

    Config: ClassVar[type[MethodConfig]] = AdaptiveDropoutConfig

    def make_gate(self, site: Site) -> Gate:
        """A retention for each unit."""
        return RetentionGate(site.units, self.config.retention)
