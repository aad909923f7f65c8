"""Attention whose cost grows with the length, instead of with its square: FAVOR+.

"Rethinking Attention with Performers", Choromanski et al. 2021 (arXiv 2009.14794), in a Conformer
as by "Efficient End-to-End Speech Recognition Using Performers in Conformers" (arXiv 2011.04196).
With positive random features phi(x) = exp(w x - |x|^2 / 2) / sqrt(m) of orthogonal directions w,
softmax attention is about phi(Q) (phi(K)^T V), normalised by phi(Q) sum phi(K). Queries, keys,
values and the output are made by the layers that were there. Ours: scores by relative position have
no such form and go, with the layer that makes them; a Conformer's convolutions know positions.

A site is one block's softmax attention, of one unit: while it is there nothing changes, and its cut
puts linear attention in its place. These sites stand alone.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.sites.base import Site, SiteMap, count_parameters

SOFTMAX = "softmax_attention"
ATTRIBUTE = "self_attn"
FEATURES_A_DIMENSION = 4  # ours; the authors' are about log d_k times d_k
GUARD = 1e-6  # added to the features, so that no query is left without a key
HIDDEN = -1e9
Attention = tuple[str, int, nn.Module]  # name of its site, index of its block, the block


class LinearAttention(nn.Module):
    """Attention by random features, of a relative attention's own layers.

    Args:
        attention: ESPnet's, whose layers are taken as they are.
        seed: seed of the features.
    """

    def __init__(self, attention: nn.Module, seed: int = 0) -> None:
        super().__init__()
        self.h = attention.h
        self.d_k = attention.d_k
        for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
            setattr(self, name, getattr(attention, name))
        self.pos_bias_u = attention.pos_bias_u
        features = orthogonal_features(FEATURES_A_DIMENSION * self.d_k, self.d_k, seed)
        self.register_buffer("features", features.to(self.pos_bias_u))

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, positions: Tensor, mask: Tensor | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); the mask is (B, 1, T), positions aren't looked at."""
        shape = (len(query), -1, self.h, self.d_k)
        q = (self.linear_q(query).view(shape) + self.pos_bias_u).transpose(1, 2)
        k = self.linear_k(key).view(shape).transpose(1, 2)
        v = self.linear_v(value).view(shape).transpose(1, 2)
        hidden = None if mask is None else ~mask.bool()[:, :, :, None]  # (B, 1, T, 1)
        attended = by_features(q, k, v, self.features, hidden)
        return self.linear_out(attended.transpose(1, 2).reshape(len(query), -1, self.h * self.d_k))


def by_features(q: Tensor, k: Tensor, v: Tensor, features: Tensor, hidden: Tensor | None) -> Tensor:
    """About softmax(q k^T / sqrt(d_k)) v, (B, H, T, d_k).

    Args:
        q: (B, H, T, d_k).
        k: likewise.
        v: likewise.
        features: (m, d_k).
        hidden: (B, 1, T, 1), True where a key is padding.
    """
    scale = q.shape[-1] ** -0.25
    of_queries, of_keys = (_exponents(x.float() * scale, features.float()) for x in (q, k))
    if hidden is not None:
        of_keys = of_keys.masked_fill(hidden, HIDDEN)
    # factors that queries, or all keys of a head, have in common cancel
    of_queries = (of_queries - of_queries.amax(dim=-1, keepdim=True)).exp() + GUARD
    of_keys = (of_keys - of_keys.amax(dim=(-1, -2), keepdim=True)).exp() + GUARD
    if hidden is not None:
        of_keys = of_keys.masked_fill(hidden, 0.0)
    seen = of_queries @ (of_keys.transpose(-1, -2) @ v.float())
    return (seen / (of_queries @ of_keys.sum(dim=-2)[..., None])).to(v.dtype)


def orthogonal_features(number: int, size: int, seed: int) -> Tensor:
    """Directions (number, size), orthogonal in groups of ``size``, with lengths of Gaussians."""
    generator = torch.Generator().manual_seed(seed)
    groups = [
        torch.linalg.qr(torch.randn(size, size, generator=generator))[0].T
        for _ in range(-(-number // size))
    ]
    lengths = torch.randn(number, size, generator=generator).norm(dim=1, keepdim=True)
    return torch.cat(groups)[:number] * lengths


def _exponents(x: Tensor, features: Tensor) -> Tensor:
    """w x - |x|^2 / 2, (..., m)."""
    return x @ features.T - x.square().sum(dim=-1, keepdim=True) / 2


class SoftmaxSite(Site):
    """One block's softmax attention.

    Args:
        name: its name.
        block: index of its block.
        owner: the block.
    """

    def __init__(self, name: str, block: int, owner: nn.Module) -> None:
        super().__init__(name, SOFTMAX, 1, block)
        self.owner = owner
        self.softmax = getattr(owner, ATTRIBUTE)

    def attach(self) -> None:
        """Nothing: one attention takes the other's place while the mask is 0."""

    def apply(self, mask: Tensor) -> None:
        if not bool(mask.any()):
            self._replace()

    def clear(self) -> None:
        setattr(self.owner, ATTRIBUTE, self.softmax)

    def detach(self) -> None:
        self.clear()

    def unit_weights(self) -> list[Tensor]:
        return [self.softmax.linear_pos.weight.view(1, -1)]

    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Puts linear attention in its place, unless it stays."""
        if not len(kept):
            self._replace()

    def _replace(self) -> None:
        linear = LinearAttention(self.softmax, seed=self.block)
        setattr(self.owner, ATTRIBUTE, linear.train(self.softmax.training))


def softmax_sites(
    model: nn.Module,
    attentions: Iterable[Attention],
    reference_seconds: float,
    entries: Sequence[nn.Module] = (),
) -> SiteMap:
    """A site for every block that attends by softmax.

    Args:
        model: whose forward is masked.
        attentions: name, index and block of each.
        reference_seconds: passed on; no MACs are counted.
        entries: parts of the model that are also run on their own.
    """
    sites = {attention[0]: SoftmaxSite(*attention) for attention in attentions}
    terms = []
    for name, site in sites.items():
        goes = count_parameters(site.softmax.linear_pos) + site.softmax.pos_bias_v.numel()
        terms.append(CostTerm(goes, 0, (name,)))
    rest = count_parameters(model) - sum(term.parameters for term in terms)
    return SiteMap(sites, [*terms, CostTerm(rest, 0, ())], model, reference_seconds, entries)
