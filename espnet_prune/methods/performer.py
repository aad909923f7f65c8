"""Performer: every block attends by random features, distilled from the teacher.

"Efficient End-to-End Speech Recognition Using Performers in Conformers" (arXiv 2011.04196): FAVOR+
(``sites.linear_attention``) in place of a Conformer's softmax attention. There it is trained so;
ours: the teacher's own layers go on under it, distilled from the teacher as it was, by as many
updates as every other system. What goes is the cost that grows with the square of the length, which
no budget here counts, so its target is 1: all that softmax attention alone has. The profile says
what it saves.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.errors import ConfigError
from espnet_prune.methods.base import Method
from espnet_prune.methods.options import MethodConfig
from espnet_prune.sites import SOFTMAX, DecoderConfig
from espnet_prune.surgery import GatedModel


class Performer(Method):
    """Linear attention in every block.

    Raises:
        ConfigError: a budget in MACs.
    """

    target_range: ClassVar[tuple[float, float]] = (1.0, 1.0)
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    needs_units: ClassVar[bool] = False

    @property
    def site_kinds(self) -> Sequence[str]:
        """Softmax attention."""
        return (SOFTMAX,)

    @property
    def decoder(self) -> DecoderConfig | None:
        """The encoder alone."""
        return None

    def check(self) -> None:
        """ConfigError for MACs."""
        if self.measure != "parameters":
            raise ConfigError(
                f"budget: measure: {self.measure} of linear attention aren't counted; measure "
                "parameters"
            )

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """None stays."""
        return {name: torch.zeros(1) for name in gated.gate_names()}
