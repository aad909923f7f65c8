"""Weights in few bits: whole numbers, and a scale for each row.

A row w of a matrix or convolution, all that makes one output, is q s with whole q between
-(2^(bits - 1) - 1) and 2^(bits - 1) - 1, and s = max |w| / (2^(bits - 1) - 1), rounded up to 16
binary digits, so that the products are exact and what was rounded once is as before. On disk q
takes a byte in 8 bits and half of one in 4, s four bytes; of a sparse weight (``surgery.sparse``)
those q alone that aren't 0, and their places. In memory the weights are float32 again,
rounded: such a file is smaller, nothing is faster (``decode.int8`` computes in 8 bits).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy
import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.surgery.sparse import MASK, at_their_places, number_kept, places_and_values

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
        model: the model; its weights may be stored sparse.
        bits: 4 or 8.
    """
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


def pack(
    state: Mapping[str, Tensor], bits: int, names: Iterable[str], sparse: Collection[str] = ()
) -> dict[str, Tensor]:
    """Replaces each named weight by its levels, packed, and its scales; of those in ``sparse``
    by the places of levels that aren't 0, and these alone."""
    packed = dict(state)
    for name in names:
        levels, packed[name + SCALES] = levels_of(packed.pop(name), bits)
        if name in sparse:
            packed[name + MASK], levels = places_and_values(levels)
        packed[name + LEVELS] = _halved(levels) if bits == 4 else levels
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
        places, size = whole.pop(name + MASK, None), int(numpy.prod(shape))
        stored = size if places is None else number_kept(places)
        flat = _doubled(levels, stored) if bits == 4 else levels.flatten()
        if places is not None:
            flat = at_their_places(places, flat, [size], f"{where}: {name}")
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
