"""Linear layers of low rank: the units are directions of what a layer gives, its cut two layers.

With orthonormal directions U (outputs, units), the columns of ``basis``, a mask m leaves

    U diag(m) U^T W

of the weight W (outputs, inputs), which trains on under it. Once a direction is gone the layer is
cut into U m (outputs, kept) behind U^T W (kept, inputs), which costs inputs + outputs for each kept
one. There are as many units as such pairs are smaller than W; while all are there the layer stays
whole, with what is outside their span, and W's odd remainder counts as something that only a whole
layer has. Sparsity counts these matrices alone.

A layer may borrow another's weight: then W is that weight and U diag(m) U^T of the difference, U
being its directions, and the borrowed weight stays shared.

These sites stand alone: they aren't mixed with others, but a model whose units were cut may be cut
so afterwards.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.budget.structure import CostTerm
from espnet_prune.sites import masked
from espnet_prune.sites.base import Site, SiteMap, count_parameters
from espnet_prune.sites.unfit import refuse_tied
from espnet_prune.sites.weights import Matrix

RANK = "rank"


class LowRankLinear(nn.Module):
    """A linear layer as two, the first one without a bias; beside a shared one, if it borrows.

    Args:
        first: its weight (rank, inputs).
        second: its weight (outputs, rank).
        bias: (outputs,), if any.
        shared: the weight (outputs, inputs) of another layer.
    """

    def __init__(
        self,
        first: Tensor,
        second: Tensor,
        bias: Tensor | None,
        shared: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self.first = _linear(first, None)
        self.second = _linear(second, bias)
        self.register_parameter("shared", shared)

    @property
    def weight(self) -> Tensor:
        """All of it as one, (outputs, inputs), for whoever multiplies by it himself."""
        product = self.second.weight @ self.first.weight
        return product if self.shared is None else product + self.shared

    @property
    def bias(self) -> Tensor | None:
        """That of the second layer."""
        return self.second.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        y = self.second(self.first(x))
        return y if self.shared is None else y + F.linear(x, self.shared)


class RankMaskedLinear(masked.MaskedLinear):
    """A linear layer some of whose directions are gone; made in place by ``RankSite.attach``."""

    rank_mask: Tensor | None
    lender: tuple[nn.Linear, ...]  # none or one; a tuple, so that it is no part of this layer

    def scaled(self) -> tuple[Tensor, Tensor | None]:
        weight = self.weight
        if self.rank_mask is not None:
            weight = narrowed(weight, self.basis, self.rank_mask, _lent(self.lender))
        return weight, self.bias


def narrowed(weight: Tensor, basis: Tensor, mask: Tensor, shared: Tensor | None = None) -> Tensor:
    """What a mask leaves of a weight (outputs, inputs); bitwise all of it if it is 1 everywhere.

    Args:
        weight: W.
        basis: U (outputs, units).
        mask: m (units,).
        shared: a borrowed weight (outputs, inputs).
    """
    own = weight if shared is None else weight - shared
    rows, mask = basis.T @ own, mask.to(weight.dtype)
    if bool((mask == 0).any()):
        left = (basis * mask) @ rows
        return left if shared is None else left + shared
    return weight - (basis * (1 - mask)) @ rows


def _lent(lender: Sequence[nn.Linear]) -> Tensor | None:
    return lender[0].weight if lender else None


class RankSite(Site):
    """The directions of one linear layer; its bias stays.

    Args:
        name: its name.
        block: index of its block.
        layer: the layer.
        owner: the module that has it.
        attribute: its name there.
    """

    def __init__(
        self, name: str, block: int, layer: nn.Linear, owner: nn.Module, attribute: str
    ) -> None:
        outputs, inputs = layer.weight.shape
        super().__init__(name, RANK, outputs * inputs // (outputs + inputs), block)
        self.layer = layer
        self.owner = owner
        self.attribute = attribute
        self.basis: Tensor | None = None  # once detached; None where weights are loaded afterwards
        self.lender: RankSite | None = None

    def attach(self) -> None:
        """Prepares the layer, with its left singular vectors as directions."""
        if type(self.layer) is RankMaskedLinear:
            return
        self.layer.register_buffer("basis", singular_vectors(self.layer.weight, self.units))
        self.layer.__class__ = RankMaskedLinear
        self.layer.lender = ()
        self.clear()

    def apply(self, mask: Tensor) -> None:
        self.layer.rank_mask = mask

    def clear(self) -> None:
        if type(self.layer) is RankMaskedLinear:
            masked.clear(self.layer)
            self.layer.rank_mask = None

    def detach(self) -> None:
        if type(self.layer) is RankMaskedLinear:
            self.basis = self.layer.basis
            del self.layer.basis, self.layer.rank_mask, self.layer.lender
            self.layer.__class__ = masked.MaskedLinear
            masked.detach(self.layer)

    def borrow(self, lender: "RankSite | None") -> None:
        """Lets the layer, while it is attached, be the lender's and directions of the difference.

        Args:
            lender: a layer of the same shape that stays whole; None to borrow no longer.
        """
        self.lender, self.layer.lender = lender, () if lender is None else (lender.layer,)
        own = self.layer.weight.detach()
        difference = own if lender is None else own - lender.layer.weight.detach()
        self.layer.basis.copy_(singular_vectors(difference, self.units))

    def layers(self) -> list[nn.Module]:
        return [self.layer]

    def unit_weights(self) -> list[Tensor]:
        return [self.layer.basis.T @ self.layer.weight]

    @torch.no_grad()
    def magnitudes(self) -> Tensor:
        """How much of the weight a direction holds for what it costs, the square root of it."""
        outputs, inputs = self.layer.weight.shape
        held = (self.layer.basis.T @ self.layer.weight).double().square().sum(dim=1)
        return (held / (outputs + inputs)).sqrt()

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Puts two layers in the layer's place, unless every direction stays."""
        weight = self.layer.weight.detach()
        basis = weight.new_zeros(len(weight), self.units) if self.basis is None else self.basis
        values = values.to(weight)
        shared = None if self.lender is None else self.lender.layer.weight
        if len(kept) == self.units:
            weight.copy_(narrowed(weight, basis, values, shared))
            return
        basis = basis[:, kept.to(weight.device)]
        bias = None if self.layer.bias is None else self.layer.bias.detach()
        own = weight if shared is None else weight - shared
        pair = LowRankLinear(basis.T @ own, basis * values, bias, shared)
        setattr(self.owner, self.attribute, pair)


@torch.no_grad()
def singular_vectors(weight: Tensor, number: int) -> Tensor:
    """The first left singular vectors (outputs, number), those of the largest values first."""
    found = torch.linalg.svd(weight.detach().double().cpu(), full_matrices=False)[0]
    return found[:, :number].to(weight).contiguous()


def rank_sites(
    model: nn.Module,
    matrices: Iterable[Matrix],
    reference_seconds: float,
    entries: Sequence[nn.Module] = (),
) -> SiteMap:
    """A site for every one of a model's matrices.

    Args:
        model: whose forward is masked.
        matrices: the linear layers of its attention and feed-forward parts.
        reference_seconds: passed on; no MACs are counted.
        entries: parts of the model that are also run on their own.

    Raises:
        ModelError: a matrix that two layers share.
    """
    owners = {
        id(child): (owner, attribute)
        for owner in model.modules()
        for attribute, child in owner.named_children()
    }
    sites = {m[0]: RankSite(*m, *owners[id(m[2])]) for m in matrices}
    refuse_tied(model, sites.values())
    terms, counted = [], 0
    for name, site in sites.items():
        outputs, inputs = site.layer.weight.shape
        terms.append(CostTerm(outputs + inputs, 0, (name,)))
        remainder = outputs * inputs % (outputs + inputs)
        terms.append(CostTerm(remainder, 0, (name,), whole=True))
        counted += outputs * inputs
    terms.append(CostTerm(count_parameters(model) - counted, 0, ()))
    return SiteMap(sites, terms, model, reference_seconds, entries)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of these weights; torch warns of an empty one that it is to fill by itself."""
    layer = nn.Linear(1, 1, bias=bias is not None)
    layer.weight = nn.Parameter(weight.clone())
    layer.out_features, layer.in_features = weight.shape
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer
