"""Performer: every block attends by random features, distilled from the teacher.

"Efficient End-to-End Speech Recognition Using Performers in Conformers" (arXiv 2011.04196): FAVOR+
(``sites.linear_attention``) in place of a Conformer's softmax attention. There it is trained so;
ours: the teacher's own layers go on under it, distilled from the teacher as it was, by as many
updates as every other system. What goes is the cost that grows with the square of the length, which
no budget here counts, so its target is 1: all that softmax attention alone has. The profile says
what it saves.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.methods.base import OneKindMethod
from espnet_prune.sites import SOFTMAX
from espnet_prune.surgery import GatedModel


class Performer(OneKindMethod):
    """Linear attention in every block.

    Raises:
        ConfigError: a budget in MACs.
    """

    target_range: ClassVar[tuple[float, float]] = (1.0, 1.0)
    kind = SOFTMAX
    not_counted = "{} of linear attention aren't counted"

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """None stays."""
        return {name: torch.zeros(1) for name in gated.gate_names()}
