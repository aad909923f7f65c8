"""P2's first variant: self-pinching gates on single weights, as the paper's large ratios are.

Xu et al., Interspeech 2025 (arXiv 2505.22608), see ``self_pinching``: one threshold for each linear
matrix of the encoder's attention and feed-forward modules, which alone are counted, as the paper
does: sparsity is the share of *these* weights that is 0. The tensors keep their shapes, so the file
is smaller and nothing is faster.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.budget import BAND_STRENGTH_WEIGHTS
from espnet_prune.errors import ConfigError
from espnet_prune.gates import Gate, SelfPinchingGate
from espnet_prune.methods.self_pinching import SelfPinching
from espnet_prune.sites import WEIGHT, Site
from espnet_prune.surgery import GatedModel


class SelfPinchingWeights(SelfPinching):
    """Single weights stay while W^2 >= t^2; ``sites`` of the config is not read.

    Raises:
        ConfigError: a budget in MACs, of which single weights save none.
    """

    band_strength: ClassVar[float] = BAND_STRENGTH_WEIGHTS

    def check_budget(self) -> None:
        """ConfigError for MACs."""
        if self.measure != "parameters":
            raise ConfigError(
                f"budget: measure: single weights save no {self.measure}; measure parameters"
            )

    @property
    def site_kinds(self) -> Sequence[str]:
        """Every weight by itself."""
        return (WEIGHT,)

    def make_gate(self, site: Site) -> Gate:
        """A threshold for a matrix."""
        return SelfPinchingGate(site.units, site.mean_squares, self.options.gate, self.updates)

    def masks_at_target(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The masks of all thresholds scaled alike; each weight costs one, so a rank decides."""
        names = gated.gate_names()
        ratios = [gated.gate(name).ratios() for name in names]
        flat = torch.cat(ratios)
        closed = round(self.target * len(flat))
        kept = torch.ones_like(flat)
        kept[torch.argsort(flat, stable=True)[:closed]] = 0.0
        return dict(zip(names, kept.split([len(r) for r in ratios]), strict=True))
