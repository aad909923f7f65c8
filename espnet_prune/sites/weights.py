"""Single weights of a model's attention and feed-forward matrices: one site a matrix.

The mask multiplies the weight, element by element. The cut leaves zeros where weights were, in
tensors of the same shape: smaller on disk (``surgery.sparse``), no faster, so a weight costs one
parameter and no multiply-accumulate. These sites stand alone: they are not mixed with others.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.sites import masked
from espnet_prune.sites.base import Site, SiteMap, count_parameters
from espnet_prune.sites.unfit import refuse_tied

WEIGHT = "weight"
Matrix = tuple[str, int, nn.Linear]  # name of its site, index of its block, the layer


class WeightSite(Site):
    """All weights of one linear layer; its bias stays."""

    def __init__(self, name: str, block: int, layer: nn.Linear) -> None:
        super().__init__(name, WEIGHT, layer.weight.numel(), block)
        self.layer = layer

    def attach(self) -> None:
        masked.attach(self.layer)

    def apply(self, mask: Tensor) -> None:
        self.layer.weight_mask = mask.view_as(self.layer.weight)

    def clear(self) -> None:
        if isinstance(self.layer, masked._Masked):
            masked.clear(self.layer)

    def detach(self) -> None:
        masked.detach(self.layer)

    def layers(self) -> list[nn.Module]:
        return [self.layer]

    def unit_weights(self) -> list[Tensor]:
        return [self.layer.weight.reshape(-1, 1)]

    def mean_squares(self) -> Tensor:
        return self.layer.weight.flatten() ** 2

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Multiplies the weights ``kept`` by their ``values`` and puts zeros for the others."""
        factors = torch.zeros(self.units)
        factors[kept] = values.to(factors)
        self.layer.weight.mul_(factors.to(self.layer.weight).view_as(self.layer.weight))


def weight_sites(
    model: nn.Module,
    matrices: Iterable[Matrix],
    reference_seconds: float,
    entries: Sequence[nn.Module] = (),
) -> SiteMap:
    """A site for every one of a model's matrices.

    Args:
        model: whose forward is masked.
        matrices: the linear layers of its attention and feed-forward parts.
        reference_seconds: passed on; single weights save no MACs.
        entries: parts of the model that are also run on their own.

    Raises:
        ModelError: a matrix that two layers share.
    """
    sites = {matrix[0]: WeightSite(*matrix) for matrix in matrices}
    refuse_tied(model, sites.values())
    terms = [CostTerm(1, 0, (name,)) for name in sites]
    rest = count_parameters(model) - sum(site.units for site in sites.values())
    terms.append(CostTerm(rest, 0, ()))
    return SiteMap(sites, terms, model, reference_seconds, entries)
