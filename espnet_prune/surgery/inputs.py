"""What the layers that read a site's units get to see, as the rows of a linear problem."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

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
        output without its bias. ``columns_of`` says which columns are those of a unit.
    """
    seen: dict[int, Tensor] = {}

    def keep(layer: nn.Module, inputs: tuple) -> None:
        seen[id(layer)] = rows_of(layer, inputs[0].detach())

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
    area = site.consumer.weight[0, 0].numel()  # of a kernel, which reads an input at several places
    inputs = site.columns(units.cpu()).to(units.device)
    return (inputs[:, None] * area + torch.arange(area, device=units.device)).reshape(-1)


def by_unit(site: ConsumedSite, columns: Tensor) -> Tensor:
    """(columns, ...) -> (units, columns of a unit, ...)."""
    order = columns_of(site, torch.arange(site.units, device=columns.device))
    return columns[order].reshape(site.units, -1, *columns.shape[1:])


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


def rows_of(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's input as a matrix; of a convolution every window that the kernel sees is a row."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    return windows_of(layer, x).flatten(0, -2)


def windows_of(layer: nn.Module, x: Tensor) -> Tensor:
    """What a convolution's kernel sees at each of its places: (B, places..., columns)."""
    dimensions = len(layer.kernel_size)
    x = F.pad(x, [amount for amount in reversed(layer.padding) for _ in range(2)])
    for place, (size, stride) in enumerate(zip(layer.kernel_size, layer.stride, strict=True)):
        x = x.unfold(2 + place, size, stride)  # (B, channels, places..., kernel...)
    places = range(2, 2 + dimensions)
    x = x.permute(0, *places, 1, *range(2 + dimensions, 2 + 2 * dimensions))
    return x.flatten(1 + dimensions)


def first_tensor(value: object) -> Tensor:
    """The first tensor of what a module takes or gives: of tuples and mappings the first entry."""
    while not isinstance(value, Tensor):
        value = next(iter(value.values())) if isinstance(value, Mapping) else value[0]
    return value


@torch.no_grad()
def watch(
    gated: GatedModel,
    passes: Sequence[Callable[[], object]],
    hooks: Iterable[tuple[nn.Module, Callable[[Any, tuple, Any], None]]],
) -> None:
    """Runs the dense model in all passes; each hook gets what its module took and gave.

    Args:
        gated: the gated model, in evaluation mode.
        passes: each runs it on an utterance.
        hooks: modules and their hooks, called with module, inputs and output.
    """
    with holding(gated, {}), ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        for run in passes:
            run()
