"""Norms over all units of a site: taken over the open units alone, as the cut norm does.

One unit changes the mean and variance of all. A soft mask scales what is read later, never those
statistics.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.sites.base import ConsumedSite


class _OpenNorm:
    """Mixin: a layer norm, or a group norm of one group, over the ``open_units``; the others 0."""

    open_units: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """(..., units) -> (..., units); of a group norm (B, units, T) -> (B, units, T)."""
        kept = self.open_units
        if kept is None:
            return super().forward(x)
        if not len(kept):
            return torch.zeros_like(x)
        weight, bias = self.weight[kept], self.bias[kept]
        if isinstance(self, nn.GroupNorm):
            dimension, normed = 1, F.group_norm(x[:, kept], 1, weight, bias, self.eps)
        else:
            own = (len(kept),)
            dimension, normed = -1, F.layer_norm(x[..., kept], own, weight, bias, self.eps)
        return torch.zeros_like(x, dtype=normed.dtype).index_copy(dimension, kept, normed)


def attach(norm: nn.LayerNorm | nn.GroupNorm) -> None:
    """Turns a layer norm over the last dimension, or a group norm of one group, open, in place."""
    if not isinstance(norm, _OpenNorm):
        norm.__class__ = _open_kind(type(norm))
    norm.open_units = None


def apply(norm: nn.Module, mask: Tensor, units: Tensor | None = None) -> None:
    """Lets the norm count only what a mask leaves open.

    Args:
        norm: one that is attached.
        mask: (units of the site,).
        units: indices of the norm's own units that belong to each of the site's, (site, each); by
            default one.
    """
    kept = mask.detach().nonzero()[:, 0]
    if len(kept) == len(mask):
        norm.open_units = None
    else:
        norm.open_units = kept if units is None else units.to(kept.device)[kept].flatten()


def clear(norm: nn.Module) -> None:
    """Lets the norm count all units again."""
    if isinstance(norm, _OpenNorm):
        norm.open_units = None


@functools.cache
def _open_kind(stock: type) -> type:
    return type(f"Open{stock.__name__}", (_OpenNorm, stock), {})


def detach(norm: nn.Module) -> None:
    """Turns an open norm back into its stock kind, in place."""
    if isinstance(norm, _OpenNorm):
        del norm.open_units
        norm.__class__ = type(norm).__mro__[2]


def keep(norm: nn.Module, kept: Tensor) -> None:
    """Cuts a norm's weight and bias to the units ``kept``."""
    norm.weight = nn.Parameter(norm.weight.detach()[kept].clone())
    norm.bias = nn.Parameter(norm.bias.detach()[kept].clone())
    if isinstance(norm, nn.LayerNorm):
        norm.normalized_shape = (len(kept),)
    elif isinstance(norm, nn.GroupNorm):
        norm.num_channels = len(kept)


class NormedSite(ConsumedSite):
    """A site whose units pass norms over all of them before they are read."""

    def norms(self) -> list[nn.Module]:
        """The norms over these units."""
        raise NotImplementedError

    def attach(self) -> None:
        super().attach()
        for norm in self.norms():
            attach(norm)

    def apply(self, mask: Tensor) -> None:
        super().apply(mask)
        for norm in self.norms():
            apply(norm, mask)

    def clear(self) -> None:
        super().clear()
        for norm in self.norms():
            clear(norm)

    def detach(self) -> None:
        super().detach()
        for norm in self.norms():
            detach(norm)
