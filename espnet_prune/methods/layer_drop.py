"""Layer dropping: whole blocks go, and the depth shrinks instead of the widths.

After "Layer Pruning on Demand with Intermediate CTC", Lee, Kang and Watanabe, Interspeech 2021
(arXiv 2106.09216). Published: intermediate CTC and stochastic depth in the training make a model
whose blocks can be dropped with no finetuning, and strategies find the blocks that are safe to
drop. Here blocks are dropped from whatever teacher there is, which costs it more than theirs,
since intermediate CTC can't be gated; it is finetuned afterwards with as many updates as every
other system. Which block goes next is ours (``layer_drop.order``): the one whose loss is the
smallest without it, or the one that is farthest from those that are gone and from both ends.

A model of equal blocks has only as many sizes as blocks. So that all systems are of one size, the
block that would be too much is not dropped but thinned: it loses its units of smallest magnitude,
up to the target. The log and the plan say which blocks are gone and which one is thinned.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.budget import BLOCK
from espnet_prune.config import check_choice
from espnet_prune.errors import ConfigError, ModelError, TrainingError
from espnet_prune.methods.base import DataMethod, Pass
from espnet_prune.methods.dropping import closed, sparsity_without, thinned
from espnet_prune.methods.options import DataConfig, MethodConfig
from espnet_prune.sites import DECODER
from espnet_prune.surgery import GatedModel
from espnet_prune.surgery.holding import holding

logger = logging.getLogger(__name__)


ORDERS = ("loss", "spaced")


@dataclass(frozen=True)
class LayerDropConfig:
    """Which block goes next.

    Attributes:
        order: ``loss``: one block after the other, each time the one whose loss is the smallest
            without it; ``spaced``: evenly over the depth, with no look at data.
    """

    order: str = "loss"

    def __post_init__(self) -> None:
        check_choice("layer_drop: order", self.order, ORDERS)


@dataclass(frozen=True)
class LayerDropMethodConfig(DataConfig):
    """Options of layer dropping.

    Attributes:
        layer_drop: which block goes next.
    """

    layer_drop: LayerDropConfig = field(default_factory=LayerDropConfig)


class LayerDrop(DataMethod):
    """Blocks by the loss without them, or evenly spaced; the last one in part.

    Raises:
        ConfigError: even spaces over encoder and decoder, which are no one depth.
    """

    Config: ClassVar[type[MethodConfig]] = LayerDropMethodConfig

    def check(self) -> None:
        """ConfigError for even spaces over two stacks."""
        if self.decoder is not None and self.config.layer_drop.order == "spaced":
            raise ConfigError(
                "layer_drop: order: spaced is for one stack of blocks, but decoder asks for two; "
                "choose loss, or leave decoder out"
            )

    @property
    def site_kinds(self) -> Sequence[str]:
        """Those of the config, and the blocks."""
        return tuple(dict.fromkeys((*self.config.sites, BLOCK)))

    @property
    def calibration_utterances(self) -> int:
        """None where blocks go by their places."""
        by_loss = self.config.layer_drop.order == "loss"
        return super().calibration_utterances if by_loss else 0

    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """The resolved masks of all sites: whole blocks, and units of one more.

        Raises:
            ConfigError: even spaces, but the model's decoder is pruned with its encoder.
            ModelError: a model whose blocks can't be dropped.
        """
        self.check_passes(passes)
        left = [site.name for site in gated.site_map.of_kinds((BLOCK,))]
        if not left:
            raise ModelError("layer_drop: this model has no blocks that can be dropped")
        if self.config.layer_drop.order == "spaced" and any(n.startswith(DECODER) for n in left):
            raise ConfigError(
                "layer_drop: order: spaced is for one stack of blocks, but this model's decoder is "
                "pruned with its encoder; choose loss"
            )
        number, gone, last = len(left), [], None
        while left and last is None:
            chosen = self._next(gated, left, gone, number, passes)
            left.remove(chosen)
            if sparsity_without(gated, [*gone, chosen]) > self.target:
                last = chosen
            else:
                gone.append(chosen)
        return thinned(gated, gone, last, self.target, self.config.budget.tolerance)

    def _next(
        self,
        gated: GatedModel,
        left: Sequence[str],
        gone: Sequence[str],
        number: int,
        passes: Sequence[Pass],
    ) -> str:
        """The name of the block that goes next; ``number`` is that of all blocks."""
        if self.config.layer_drop.order == "loss":
            return min(left, key=lambda name: loss_without(gated, [*gone, name], passes))
        sites = gated.site_map.sites
        places = [sites[name].block for name in gone]
        ends = [0, number - 1]

        def distances(name: str) -> tuple[int, int]:
            """To the nearest place or end, then to the nearest place."""
            near = [abs(sites[name].block - place) for place in places]
            return min(near + [abs(sites[name].block - end) for end in ends]), min(near, default=0)

        return max(left, key=distances)


@torch.no_grad()
def loss_without(gated: GatedModel, blocks: Sequence[str], passes: Sequence[Pass]) -> float:
    """Mean loss of the passes where the named blocks alone are gone.

    Raises:
        TrainingError: a loss that is not finite.
    """
    device = next(gated.model.parameters()).device
    masks = {name: mask.to(device) for name, mask in closed(gated, blocks).items()}
    with holding(gated, masks):
        loss = float(torch.stack([run().detach() for run in passes]).mean())
    if not math.isfinite(loss):
        raise TrainingError(
            f"layer_drop: without {', '.join(blocks)} the calibration loss is {loss}; is an "
            "utterance too short for its transcript, or the model damaged?"
        )
    return loss
