"""Weights in few bits: whole numbers, and a scale for each row.

A row w of a matrix or convolution, all that makes one output, is q s with whole q between
-(2^(bits - 1) - 1) and 2^(bits - 1) - 1, and s = max |w| / (2^(bits - 1) - 1), rounded up to 16
binary digits, so that the products are exact and what was rounded once is as before. On disk q
takes a byte in 8 bits and half of one in 4, s four bytes. In memory the weights are float32 again,
rounded: such a file is smaller, nothing is faster (``decode.int8`` computes in 8 bits).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy
import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.surgery.sparse import sparse_names

BITS = (4, 8)
ROUNDED_ATTRIBUTE = "espnet_prune_rounded"
LEVELS, SCALES = ".levels", ".scales"
SCALE_DIGITS = 16
LEAST_NUMBERS = 512  # smaller weights save nothing that counts


def levels_of(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The whole numbers (rows, numbers), int8, and the scales (rows, 1) of a weight's rows.

    Args:
        weight: (rows, ...).
        bits: 4 or 8.
    """
    most = 2 ** (bits - 1) - 1
    rows = weight.detach().float().reshape(len(weight), -1)
    mantissas, exponents = torch.frexp(rows.abs().amax(dim=1, keepdim=True) / most)
    scales = torch.ldexp((mantissas * 2**SCALE_DIGITS).ceil() / 2**SCALE_DIGITS, exponents)
    safe = torch.where(scales > 0, scales, 1.0)
    return (rows / safe).round().clamp(-most, most).to(torch.int8), scales


def rounded(weight: Tensor, bits: int) -> Tensor:
    """The weight as it will be read again."""
    levels, scales = levels_of(weight, bits)
    return (levels.float() * scales).view_as(weight).to(weight.dtype)


@torch.no_grad()
def round_weights(model: nn.Module, bits: int) -> None:
    """Rounds a model's matrices and convolutions in place, and notes that they are stored so.

    Args:
        model: the model.
        bits: 4 or 8.

    Raises:
        ModelError: its weights are stored sparse already.
    """
    if sparse_names(model):
        raise ModelError(
            "its weights are stored by the places of those that aren't 0; a model whose units were "
            "cut can be rounded, or a dense one"
        )
    names = []
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and weight.numel() >= LEAST_NUMBERS:
            weight.copy_(rounded(weight, bits))
            names.append(name)
    setattr(model, ROUNDED_ATTRIBUTE, (bits, tuple(names)))


def rounded_names(model: nn.Module) -> tuple[int, tuple[str, ...]]:
    """The bits and the names of weights that are stored rounded; 0 and none of another model."""
    return getattr(model, ROUNDED_ATTRIBUTE, (0, ()))


def note_rounded(model: nn.Module, bits: int, names: Iterable[str]) -> None:
    """Notes what was read so, for the next ``save``."""
    setattr(model, ROUNDED_ATTRIBUTE, (bits, tuple(names)))


def pack(state: Mapping[str, Tensor], bits: int, names: Iterable[str]) -> dict[str, Tensor]:
    """Replaces each named weight by its levels, packed, and its scales."""
    packed = dict(state)
    for name in names:
        levels, scales = levels_of(packed.pop(name), bits)
        packed[name + LEVELS] = _halved(levels) if bits == 4 else levels
        packed[name + SCALES] = scales
    return packed


def unpack(
    state: Mapping[str, Tensor], bits: int, shapes: Mapping[str, Sequence[int]], where: str
) -> dict[str, Tensor]:
    """What ``pack`` was given, rounded.

    Args:
        state: what it returned.
        bits: 4 or 8.
        shapes: shapes of the rounded weights, by name.
        where: the file that errors name.

    Raises:
        ModelError: levels or scales are missing, or don't make up the shape.
    """
    whole = dict(state)
    for name, shape in shapes.items():
        if name + LEVELS not in whole or name + SCALES not in whole:
            raise ModelError(f"{where}: {name}: its levels or scales are missing; save it again")
        levels, scales = whole.pop(name + LEVELS), whole.pop(name + SCALES)
        size = int(numpy.prod(shape))
        flat = _doubled(levels, size) if bits == 4 else levels.flatten()
        if len(flat) != size or scales.shape != (shape[0], 1):
            raise ModelError(
                f"{where}: {name}: {len(flat)} levels and {len(scales)} scales don't make up "
                f"{list(shape)}; the file is damaged"
            )
        whole[name] = (flat.view(shape[0], -1).float() * scales).view(*shape)
    return whole


def _halved(levels: Tensor) -> Tensor:
    """Two levels of 4 bits a byte, uint8 (numbers / 2, rounded up); the first one below."""
    flat = (levels.flatten() + 8).to(torch.uint8)
    if len(flat) % 2:
        flat = torch.cat([flat, flat.new_zeros(1)])
    return flat[0::2] | (flat[1::2] << 4)


def _doubled(packed: Tensor, size: int) -> Tensor:
    """``_halved`` undone, int8 (size,)."""
    pairs = torch.stack([packed & 15, packed >> 4], dim=1).flatten()
    return pairs[:size].to(torch.int8) - 8
