"""COMP: blocks first, then units by the condition of the layer that reads them, then factors.

"Lightweight and Post-Training Structured Pruning for On-Device Large Language Models", Xu et al.
2025 (arXiv 2501.15255). Published: layers are pruned by their importance, then neurons within the
dense layers of those that are left, by a metric of the matrix's condition; mask tuning recovers
accuracy without finetuning. No formula could be found, so these are ours:

- a block's importance is 1 minus the mean cosine between what it gets and what it gives, over the
  frames; the least important go while they take at most ``layer_share`` of the target;
- a unit's importance is the classical bound of the relative error in Y = X W when the unit's part
  of X goes: cond(W) |X_unit| / |X|, for each parameter (or MAC) that it costs;
- mask tuning is least squares, block by block, as in ``surgery.rescale``.

Finetuned here with as many updates as every other system.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from espnet_prune.budget import BLOCK
from espnet_prune.config import check_range
from espnet_prune.errors import ModelError
from espnet_prune.methods.base import DataMethod, Pass, unit_sites
from espnet_prune.methods.dropping import closed, sparsity_without
from espnet_prune.methods.fisher import unit_costs
from espnet_prune.methods.kcm import loudness
from espnet_prune.methods.options import DataConfig, MethodConfig
from espnet_prune.sites.block import BlockSite
from espnet_prune.surgery import GatedModel
from espnet_prune.surgery.inputs import first_tensor, watch, weight_of
from espnet_prune.surgery.rescale import rescale

SMALLEST = 1e-6  # singular values below this share of the largest count as none


@dataclass(frozen=True)
class TuningConfig:
    """How much goes by blocks, and the factors at the end.

    Attributes:
        layer_share: the share of the target that whole blocks take, at most.
        utterances: number of utterances of the calibration set, for the factors, which run the
            model twice a block.
        damping: pulls the factors to 1, relative to the normal equations' mean diagonal.
    """

    layer_share: float = 0.25
    utterances: int = 32
    damping: float = 0.1

    def __post_init__(self) -> None:
        check_range("comp: layer_share", self.layer_share, 0, 1)
        check_range("comp: utterances", self.utterances, 1, 1e6)
        check_range("comp: damping", self.damping, 1e-9, 1e9)


@dataclass(frozen=True)
class CompConfig(DataConfig):
    """Options of blocks, then units.

    Attributes:
        comp: shares and factors.
    """

    comp: TuningConfig = field(default_factory=TuningConfig)


class Comp(DataMethod):
    """Blocks that change little, then units, then least-squares factors."""

    Config: ClassVar[type[MethodConfig]] = CompConfig

    @property
    def site_kinds(self) -> Sequence[str]:
        """Those of the config, and the blocks."""
        return tuple(dict.fromkeys((*self.config.sites, BLOCK)))

    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """The resolved masks of all sites; kept units have their factors as values.

        Raises:
            ModelError: a model whose blocks can't be dropped.
        """
        self.check_passes(passes)
        options = self.config.comp
        gone = self._blocks(gated, passes)
        scores = condition_scores(gated, passes)
        masks = self._aligned(
            gated, self._highest(gated, scores, closed(gated, gone)), scores
        )  # before kept units get their factors
        return rescale(gated, masks, passes[: options.utterances], options.damping)

    def _blocks(self, gated: GatedModel, passes: Sequence[Pass]) -> list[str]:
        """The blocks that go, the least important first."""
        changes = block_changes(gated, passes)
        most = self.config.comp.layer_share * self.target
        gone: list[str] = []
        for name in sorted(changes, key=changes.__getitem__):
            if sparsity_without(gated, [*gone, name]) > most:
                break
            gone.append(name)
        return gone


def condition_scores(gated: GatedModel, passes: Sequence[Pass]) -> dict[str, Tensor]:
    """The bound above for what each unit costs, float64 (units,) by site."""
    sites = unit_sites(gated)
    loud = loudness(gated, sites, passes)
    costs = unit_costs(gated.budget, list(loud))
    return {
        site.name: condition(weight_of(site)) * loud[site.name] / costs[site.name] for site in sites
    }


def condition(matrix: Tensor) -> float:
    """Largest over smallest singular value, of those that aren't 0 but for rounding."""
    values = torch.linalg.svdvals(matrix)
    return float(values[0] / values[values > SMALLEST * values[0]][-1])


def block_changes(gated: GatedModel, passes: Sequence[Pass]) -> dict[str, float]:
    """1 minus the mean cosine between each block's input and output, by the block's name.

    Raises:
        ModelError: a model whose blocks can't be dropped.
    """
    blocks: list[BlockSite] = gated.site_map.of_kinds((BLOCK,))
    if not blocks:
        raise ModelError("comp: this model has no blocks that can be dropped")
    cosines: dict[str, list[Tensor]] = {block.name: [] for block in blocks}

    def keep(name: str):
        def hook(layer: object, inputs: tuple, output: object) -> None:
            before, after = first_tensor(inputs), first_tensor(output)
            cosines[name].append(F.cosine_similarity(before, after, dim=-1).mean())

        return hook

    watch(gated, passes, [(block.layer, keep(block.name)) for block in blocks])
    return {name: 1 - float(torch.stack(values).mean()) for name, values in cosines.items()}
