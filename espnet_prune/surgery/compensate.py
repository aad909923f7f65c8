"""Weights that make good what others did: least squares on the columns that are left.

Where a layer Y = X W loses columns P of X, its weights on the others, K, move by

    (G_KK + damping I)^{-1} G_KP W_P,    G = X^T X,

which is what keeps Y nearest (Shen et al. 2025, arXiv 2412.12441, theorem 3 in another form). X is
what the dense model's units give.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from espnet_prune.sites.base import ConsumedSite
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.inputs import columns_of, gram_matrices, weight_of


@torch.no_grad()
def compensate(
    gated: GatedModel,
    sites: Sequence[ConsumedSite],
    masks: Mapping[str, Tensor],
    passes: Sequence[Callable[[], object]],
    damping: float,
) -> None:
    """Moves the weights of the sites' consumers, in place; sites that lose nothing or all stay.

    Args:
        gated: the gated model, in evaluation mode.
        sites: those of units.
        masks: resolved masks (units,), 0 and 1.
        passes: each runs the gated model on one utterance.
        damping: relative to the mean of G's diagonal.
    """
    partly = [site for site in sites if 0 < int((masks[site.name] != 0).sum()) < site.units]
    grams = gram_matrices(gated, partly, passes)
    for site, gram in zip(partly, grams, strict=True):
        there = (masks[site.name] != 0).to(gram.device)
        kept, gone = (columns_of(site, part.nonzero()[:, 0]) for part in (there, ~there))
        weight = site.consumer.weight.detach()
        flat = weight.view(len(weight), -1)  # the model changes with it
        flat[:, kept] += _move(gram, weight_of(site), kept, gone, damping).T.to(flat)


def _move(gram: Tensor, weight: Tensor, kept: Tensor, gone: Tensor, damping: float) -> Tensor:
    """(kept, outputs)."""
    own = gram[kept][:, kept]
    ridge = damping * gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
    own.diagonal().add_(ridge)
    return torch.linalg.solve(own, gram[kept][:, gone] @ weight[gone])
