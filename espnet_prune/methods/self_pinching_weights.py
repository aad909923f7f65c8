"""P2's first variant: self-pinching gates on single weights, as the paper's large ratios are.

Xu et al., Interspeech 2025 (arXiv 2505.22608), see ``self_pinching``: one threshold for each linear
matrix of the encoder's attention and feed-forward modules, which alone are counted, as the paper
does: sparsity is the share of *these* weights that is 0. The tensors keep their shapes, so the file
is smaller and nothing is faster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.budget import BAND_STRENGTH_WEIGHTS
from espnet_prune.config import check_range
from espnet_prune.gates import Gate, SelfPinchingGate
from espnet_prune.methods.base import WeightMethod
from espnet_prune.methods.options import MethodConfig
from espnet_prune.methods.self_pinching import PinchingConfig, SelfPinching
from espnet_prune.sites import Site
from espnet_prune.surgery import GatedModel


@dataclass(frozen=True)
class SelfPinchingWeightsConfig(MethodConfig):
    """Options of self-pinching gates on single weights.

    Attributes:
        pinching: gates, controller and the one pass.
        warmup_fraction: share of the updates over which the target rises, under a Lagrangian.
    """

    pinching: PinchingConfig = field(default_factory=PinchingConfig)
    warmup_fraction: float = 0.25

    def __post_init__(self) -> None:
        check_range("warmup_fraction", self.warmup_fraction, 0, 1)


class SelfPinchingWeights(WeightMethod, SelfPinching):
    """Single weights stay while W^2 >= t^2."""

    Config: ClassVar[type[MethodConfig]] = SelfPinchingWeightsConfig
    band_strength: ClassVar[float] = BAND_STRENGTH_WEIGHTS

    def make_gate(self, site: Site) -> Gate:
        """A threshold for a matrix."""
        return SelfPinchingGate(site.units, site.mean_squares, self.options.gate, self.updates)

    def masks_at_target(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The learned masks, with the same share of what each matrix keeps closed besides.

        Those with the least W^2 / t^2 go, or, where too much went, come back. One factor on all
        thresholds would take most from the matrices that gave most, and ruin them.
        """
        masks = {name: mask.clone() for name, mask in gated.hard_masks().items()}
        total = sum(mask.numel() for mask in masks.values())
        missing = round(self.target * total) - sum(int((m == 0).sum()) for m in masks.values())
        changed = {name: mask == float(missing > 0) for name, mask in masks.items()}
        numbers = _shares(abs(missing), [int(chosen.sum()) for chosen in changed.values()])
        for (name, chosen), number in zip(changed.items(), numbers, strict=True):
            ratios = gated.gate(name).ratios()
            if missing < 0:
                ratios = -ratios
            places = chosen.nonzero()[:, 0]
            order = torch.argsort(ratios[places], stable=True)
            masks[name][places[order[:number]]] = float(missing < 0)
        return masks


def _shares(number: int, sizes: Sequence[int]) -> list[int]:
    """``number`` in parts proportional to ``sizes``, whole and exact."""
    total = max(1, sum(sizes))
    ends, seen = [], 0
    for size in sizes:
        seen += size
        ends.append(number * seen // total)
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
