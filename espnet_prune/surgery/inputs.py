"""What the layers that read a site's units get to see, as the rows of a linear problem."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.sites.base import ConsumedSite
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.holding import holding


@torch.no_grad()
def inputs_of(
    gated: GatedModel,
    sites: Sequence[ConsumedSite],
    masks: Mapping[str, Tensor],
    run: Callable[[], object],
) -> list[Tensor]:
    """What each site's consumer reads in one pass.

    Args:
        gated: the gated model.
        sites: those of units, none whose consumer isn't run.
        masks: that hold in this pass; none at all for the dense model.
        run: runs the gated model on an utterance.

    Returns:
        A matrix (rows, columns) for each site; its product with ``weight_of`` is the consumer's
        output without its bias. The columns of one unit stand together.
    """
    seen: dict[int, Tensor] = {}

    def keep(layer: nn.Module, inputs: tuple) -> None:
        seen[id(layer)] = _rows(layer, inputs[0].detach())

    with holding(gated, masks), ExitStack() as stack:
        for site in sites:
            stack.callback(site.consumer.register_forward_pre_hook(keep).remove)
        run()
    return [seen[id(site.consumer)] for site in sites]


def weight_of(site: ConsumedSite) -> Tensor:
    """The consumer's weight as the matrix (columns, outputs) of ``inputs_of``, float64."""
    return site.consumer.weight.detach().flatten(1).T.double()


def columns_of(site: ConsumedSite, units: Tensor) -> Tensor:
    """Indices of the columns of ``inputs_of`` that belong to ``units`` (their indices)."""
    width = site.consumer.weight[0].numel() // site.units
    return (units[:, None] * width + torch.arange(width, device=units.device)).reshape(-1)


def by_unit(site: ConsumedSite, columns: Tensor) -> Tensor:
    """(columns, ...) -> (units, columns of a unit, ...)."""
    return columns.reshape(site.units, -1, *columns.shape[1:])


def gram_matrices(
    gated: GatedModel,
    sites: Sequence[ConsumedSite],
    passes: Sequence[Callable[[], object]],
) -> list[Tensor]:
    """X^T X (columns, columns), float64, of what each consumer reads in the dense model."""
    grams: list[Tensor] = []
    for run in passes:
        products = [(rows.T @ rows).double() for rows in inputs_of(gated, sites, {}, run)]
        grams = [a + b for a, b in zip(grams, products, strict=True)] if grams else products
    return grams


def _rows(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's input as a matrix; of a convolution every window that the kernel sees is a row."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    dimensions = len(layer.kernel_size)
    x = F.pad(x, [amount for amount in reversed(layer.padding) for _ in range(2)])
    for place, (size, stride) in enumerate(zip(layer.kernel_size, layer.stride, strict=True)):
        x = x.unfold(2 + place, size, stride)  # (B, channels, places..., kernel...)
    places = range(2, 2 + dimensions)
    x = x.permute(0, *places, 1, *range(2 + dimensions, 2 + 2 * dimensions))
    return x.reshape(x.shape[: 1 + dimensions].numel(), -1)
