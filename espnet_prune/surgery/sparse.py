"""Sparse weights on disk: a mask of one bit a weight, and the values that are left.

A weight of n numbers, k of them kept, takes n / 8 + 4 k bytes instead of 4 n in float32: smaller
where more than 1 / 32 of it is zero. In memory the tensors stay dense, with zeros, so nothing is
faster.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy
import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError

SPARSE_ATTRIBUTE = "espnet_prune_sparse"
MASK = ".sparse_mask"
VALUES = ".sparse_values"


def mark_sparse(model: nn.Module, weights: Iterable[Tensor]) -> None:
    """Notes which of the model's weights are stored sparse."""
    wanted = {id(weight) for weight in weights}
    names = [name for name, value in model.named_parameters() if id(value) in wanted]
    setattr(model, SPARSE_ATTRIBUTE, tuple(names))


def sparse_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the weights that are stored sparse; none for a dense model."""
    return getattr(model, SPARSE_ATTRIBUTE, ())


def sparse_layers(model: nn.Module) -> list[nn.Module]:
    """The layers whose weights are stored sparse; a cut renames these weights or drops them."""
    return [model.get_submodule(name.rpartition(".")[0]) for name in sparse_names(model)]


def count_zeroed(model: nn.Module, part: nn.Module | None = None) -> int:
    """How many of the sparse weights' numbers are 0, in the whole model or in a part of it."""
    inside = {id(parameter) for parameter in (part or model).parameters()}
    parameters = dict(model.named_parameters())
    weights = [parameters[name] for name in sparse_names(model)]
    return sum(int((weight == 0).sum()) for weight in weights if id(weight) in inside)


def hold_zeros(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Keeps the zeros of sparse weights at 0 while the others are trained."""
    masks = [(model.get_parameter(name), ~gone) for name, gone in zeros_of(model).items()]

    @torch.no_grad()
    def restore(*unused: object) -> None:
        for weight, mask in masks:
            weight.mul_(mask.to(weight.device))

    if masks:
        optimizer.register_step_post_hook(restore)


def zeros_of(model: nn.Module) -> dict[str, Tensor]:
    """Where the numbers of sparse weights are 0, by name."""
    sparse = sparse_names(model)
    return {name: value.detach() == 0 for name, value in model.named_parameters() if name in sparse}


def check_zeros(model: nn.Module, zeros: Mapping[str, Tensor], whose: str) -> None:
    """ModelError where what was pruned as a single weight has come back.

    Args:
        model: the model as it is now, its weights of the shapes that they had.
        zeros: those of before (``zeros_of``).
        whose: the method that changed weights, for the error.
    """
    for name, gone in zeros.items():
        if bool(model.get_parameter(name)[gone].any()):
            raise ModelError(
                f"{name}: single weights of it were pruned before, and {whose} brings them back; "
                "choose a method that changes no weights, or prune units first, then weights"
            )


def compact(state: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Replaces each sparse weight by its packed mask, uint8 (n / 8,), and its values (k,)."""
    packed = {name: value for name, value in state.items() if name not in names}
    for name in names:
        packed[name + MASK], packed[name + VALUES] = places_and_values(state[name])
    return packed


def places_and_values(dense: Tensor) -> tuple[Tensor, Tensor]:
    """A bit for each number, uint8 (numbers / 8, rounded up), and those that aren't 0."""
    flat = dense.detach().cpu().flatten()
    kept = flat != 0
    return torch.from_numpy(numpy.packbits(kept.numpy())), flat[kept]


def number_kept(bits: Tensor) -> int:
    """How many numbers the bits keep."""
    return int(numpy.unpackbits(bits.numpy()).sum()) if bits.dtype == torch.uint8 else 0


def expand(
    state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], where: str
) -> dict[str, Tensor]:
    """What ``compact`` was given, dense again.

    Args:
        state: what it returned.
        shapes: shapes of the sparse weights, by name.
        where: the file that errors name.

    Raises:
        ModelError: a mask or its values are missing, or don't fit each other or the shape.
    """
    dense = dict(state)
    for name, shape in shapes.items():
        if name + MASK not in dense or name + VALUES not in dense:
            raise ModelError(f"{where}: {name}: its mask or values are missing; save it again")
        bits, values = dense.pop(name + MASK), dense.pop(name + VALUES)
        dense[name] = at_their_places(bits, values, shape, f"{where}: {name}")
    return dense


def at_their_places(bits: Tensor, values: Tensor, shape: Sequence[int], where: str) -> Tensor:
    """``places_and_values`` undone, in its shape.

    Raises:
        ModelError: mask, values and shape don't fit.
    """
    size = int(numpy.prod(shape))
    kept = numpy.unpackbits(bits.numpy()) if bits.dtype == torch.uint8 else numpy.zeros(0)
    if len(kept) != -(-size // 8) * 8 or kept[size:].any() or kept.sum() != values.numel():
        raise ModelError(
            f"{where}: {values.numel()} values and a mask of {int(kept.sum())} among "
            f"{len(kept)} don't make up {list(shape)}; the file is damaged"
        )
    flat = torch.zeros(size, dtype=values.dtype)
    flat[torch.from_numpy(kept[:size].astype(bool))] = values
    return flat.view(*shape)
