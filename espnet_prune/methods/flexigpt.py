"""FlexiGPT: a block that is taken out is a neighbour's, and what both differ by at low rank.

"FlexiGPT: Pruning and Extending Large Language Models with Low-Rank Weight Sharing", Smith et al.
2025 (arXiv 2501.14713). Published: a pruned block is replaced by a shared neighbour with low-rank
adapters that begin at a singular value decomposition of the difference, and with its own output
norm. Ours: a block goes by the loss with it so replaced, on calibration utterances, the least one
first; its matrices of attention and feed-forwards are shared, and its norms, biases and convolution
stay its own; it borrows from the nearest block before it that is whole, or behind it where there is
none; the last block keeps more directions, up to the target. Such a model has fewer parameters, and
no fewer multiplications.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from espnet_prune.budget import keep_highest
from espnet_prune.config import check_range
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.methods.base import DataMethod, Pass, RankMethod
from espnet_prune.methods.options import CalibrationConfig, MethodConfig
from espnet_prune.sites.low_rank import RankSite
from espnet_prune.surgery import GatedModel
from espnet_prune.surgery.holding import holding

logger = logging.getLogger(__name__)
Blocks = Mapping[int, Mapping[str, RankSite]]  # by the block's index, the sites by their last names


@dataclass(frozen=True)
class FlexiGptConfig(MethodConfig):
    """Options of blocks that borrow.

    Attributes:
        rank_share: the share of its own directions that a block keeps which borrows.
        calibration: what losses are measured on.
    """

    rank_share: float = 0.1
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    def __post_init__(self) -> None:
        check_range("rank_share", self.rank_share, 0, 0.9)


class FlexiGpt(RankMethod, DataMethod):
    """Blocks that borrow, by the loss with them."""

    Config: ClassVar[type[MethodConfig]] = FlexiGptConfig

    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """The masks (units,) of all matrices.

        Raises:
            ConfigError: all blocks but one together don't reach the target.
        """
        self.check_passes(passes)
        blocks = blocks_of(gated)
        losses = {block: self._loss(gated, blocks, block, passes) for block in blocks}
        masks: dict[str, Tensor] = {}
        for block in sorted(losses, key=losses.__getitem__)[: len(blocks) - 1]:
            more = {**masks, **self._narrow(blocks[block])}
            if _sparsity(gated, more) >= self.target:
                logger.info("flexigpt: borrowing: %s, and in part %d", _borrowing(masks), block)
                chosen = self._in_part(gated, masks, blocks[block])
                self.rewrite(gated, chosen)
                return chosen
            masks = more
        raise ConfigError(
            f"target: {self.target:.1%}: all blocks but one borrowed, with {self.config.rank_share}"
            f" of their own directions, reach {_sparsity(gated, masks):.1%}; lower rank_share or "
            "the target"
        )

    def rewrite(self, gated: GatedModel, masks: Mapping[str, Tensor]) -> None:
        """Lets each block that isn't whole borrow from the nearest one that is."""
        blocks = blocks_of(gated)
        whole = [b for b, s in blocks.items() if all(masks[site.name].all() for site in s.values())]
        for block, sites in blocks.items():
            if block not in whole:
                borrow(blocks, block, whole)
                continue
            for site in sites.values():
                site.borrow(None)

    def _narrow(self, sites: Mapping[str, RankSite]) -> dict[str, Tensor]:
        """Masks of a block that keeps its share of directions, the first ones."""
        share = self.config.rank_share
        return {
            site.name: (torch.arange(site.units) < round(share * site.units)).float()
            for site in sites.values()
        }

    @torch.no_grad()
    def _loss(self, gated: GatedModel, blocks: Blocks, block: int, passes: Sequence[Pass]) -> float:
        """Mean loss where one block alone borrows."""
        borrow(blocks, block, blocks.keys() - {block})
        device = next(gated.model.parameters()).device
        masks = {name: mask.to(device) for name, mask in self._narrow(blocks[block]).items()}
        with holding(gated, masks):
            return float(torch.stack([run().detach() for run in passes]).mean())

    def _in_part(
        self, gated: GatedModel, masks: Mapping[str, Tensor], sites: Mapping[str, RankSite]
    ) -> Mapping[str, Tensor]:
        """The same share of the last block's directions, up to the target."""
        scores = {s.name: -torch.arange(s.units) / s.units for s in sites.values()}
        tolerance = self.config.budget.tolerance
        return keep_highest(scores, gated.budget, self.target, tolerance, masks)


def blocks_of(gated: GatedModel) -> dict[int, dict[str, RankSite]]:
    """The sites of each block by their names within it.

    Raises:
        ModelError: blocks that have other matrices than others, so that they can't stand for them.
    """
    blocks: dict[int, dict[str, RankSite]] = {}
    for site in gated.site_map.sites.values():
        blocks.setdefault(site.block, {})[site.name.split(".", 2)[-1]] = site
    every = set().union(*blocks.values())
    for block, sites in blocks.items():
        lacking = sorted(every - sites.keys())
        if lacking:
            raise ModelError(
                f"flexigpt: block {block} has no {lacking[0]}, which another has, so that neither "
                "can borrow from the other; choose another method for this model"
            )
    return blocks


def borrow(blocks: Blocks, block: int, whole: Iterable[int]) -> None:
    """Lets a block's matrices borrow from the nearest whole block before it, else behind it."""
    before = [other for other in whole if other < block]
    lender = max(before) if before else min(whole)
    for name, site in blocks[block].items():
        site.borrow(blocks[lender][name])


def _sparsity(gated: GatedModel, masks: Mapping[str, Tensor]) -> float:
    everything = {n: masks.get(n, torch.ones(s.units)) for n, s in gated.site_map.sites.items()}
    return float(gated.budget.sparsity(gated.budget.hard(everything)))


def _borrowing(masks: Mapping[str, Tensor]) -> str:
    return ", ".join(dict.fromkeys(name.split(".")[1] for name in masks)) or "none"
