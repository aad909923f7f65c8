"""Weights in few bits: whole numbers, and scales for the rows of a matrix or convolution.

A row, all that makes one output, is q s with whole q between -(2^(bits - 1) - 1) and
2^(bits - 1) - 1. In 8 bits s is one number a row, in 4 bits one for each of the stretches of at
most 64 numbers, as equal as can be, into which a row is split. The digits of s are so few that the
products are exact. On disk q takes a byte in 8 bits and half of one in 4, s four bytes or two; of a
sparse weight (``surgery.sparse``) those q alone that aren't 0, and their places. In memory the
weights are float32 again, rounded: such a file is smaller, nothing is faster (``decode.int8``
computes in 8 bits).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.surgery.sparse import MASK, at_their_places, number_kept, places_and_values

ROUNDED_ATTRIBUTE = "espnet_prune_rounded"
LEVELS, SCALES = ".levels", ".scales"


@dataclass(frozen=True)
class Form:
    """How numbers are stored in so many bits.

    Attributes:
        bits: bits a number.
        group: how many numbers of a row share a scale at most; 0: all of them.
        digits: binary digits of a scale, as many as its type on disk has at least.
        scales: that type.
        shrinks: which shares of the largest number are tried as the largest that is stored.
        utterances: by what layers hear of so many the numbers are chosen; 0: the nearest ones.
    """

    bits: int
    group: int
    digits: int
    scales: torch.dtype
    shrinks: tuple[float, ...]
    utterances: int

    @property
    def most(self) -> int:
        """The largest whole number."""
        return 2 ** (self.bits - 1) - 1

    @property
    def stored(self) -> torch.dtype:
        """Of the whole numbers on disk."""
        return torch.uint8 if self.bits == 4 else torch.int8

    def width(self, numbers: int) -> int:
        """How many numbers of a row of so many share a scale; of the last stretch maybe fewer."""
        return -(-numbers // -(-numbers // (self.group or numbers)))

    def scale_of(self, rows: Tensor, costs: Tensor | None = None) -> Tensor:
        """The scales (..., rows, 1) by which rows are best rounded; 0 for rows of zeros.

        Args:
            rows: (..., rows, numbers).
            costs: (..., numbers), of a square error of 1 in each column; by default all the same.
        """
        costs = torch.ones_like(rows[..., 0, :]) if costs is None else costs
        largest = rows.abs().amax(dim=-1, keepdim=True)
        scales = torch.stack([self._short(largest * shrink / self.most) for shrink in self.shrinks])
        errors = (self.levels(rows, scales) * scales - rows).square() * costs[..., None, :]
        best = errors.sum(dim=-1, keepdim=True).argmin(dim=0, keepdim=True)
        return scales.gather(0, best)[0]

    def _short(self, scales: Tensor) -> Tensor:
        """With so few digits, rounded up."""
        mantissas, exponents = torch.frexp(scales)
        return torch.ldexp((mantissas * 2**self.digits).ceil() / 2**self.digits, exponents)

    def levels(self, numbers: Tensor, scales: Tensor) -> Tensor:
        """The nearest whole numbers, of the type of ``numbers``; scales of their dimensions."""
        return (numbers / torch.where(scales > 0, scales, 1)).round().clamp(-self.most, self.most)


FORMS = {
    form.bits: form
    for form in (
        Form(4, 64, 8, torch.bfloat16, tuple(1 - 0.05 * i for i in range(11)), 64),
        Form(8, 0, 16, torch.float32, (1.0,), 0),
    )
}


def by_number(scales: Tensor, numbers: int) -> Tensor:
    """Scales (rows, stretches) repeated for each number of a row (rows, numbers)."""
    width = -(-numbers // scales.shape[-1])
    return scales.float().repeat_interleave(width, dim=-1)[..., :numbers]


@dataclass(frozen=True)
class Rounded:
    """How a weight is stored.

    Attributes:
        bits: bits a number.
        scales: (rows, stretches).
    """

    bits: int
    scales: Tensor

    def values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The whole numbers nearest to rows (rows, numbers) of float32, and what they stand for."""
        spread = by_number(self.scales, rows.shape[1])
        levels = FORMS[self.bits].levels(rows, spread)
        return levels, levels * spread


def nearest(weight: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """The weight (rows, ...) with each number as near as it can be, and its scales."""
    rows = weight.detach().float().reshape(len(weight), -1)
    parts = rows.split(form.width(rows.shape[1]), dim=1)
    rounded = Rounded(form.bits, torch.cat([form.scale_of(part) for part in parts], dim=1))
    return rounded.values(rows)[1].view_as(weight).to(weight.dtype), rounded.scales


def note_rounded(model: nn.Module, rounded: Mapping[str, Rounded]) -> None:
    """Notes for the next ``save`` which weights are rounded, by name."""
    setattr(model, ROUNDED_ATTRIBUTE, dict(rounded))


def rounded_weights(model: nn.Module) -> dict[str, Rounded]:
    """By name, the weights that still are what they were rounded to.

    Those that were trained or cut since are not among them.
    """
    noted, weights = getattr(model, ROUNDED_ATTRIBUTE, {}), dict(model.named_parameters())
    return {n: r for n, r in noted.items() if n in weights and _is_still(weights[n], r)}


def _is_still(weight: Tensor, rounded: Rounded) -> bool:
    if len(rounded.scales) != len(weight):
        return False
    rows = weight.detach().float().cpu().reshape(len(weight), -1)
    return bool(rounded.values(rows)[1].equal(rows))


def pack(
    state: Mapping[str, Tensor], rounded: Mapping[str, Rounded], sparse: Collection[str] = ()
) -> dict[str, Tensor]:
    """Replaces each rounded weight by its levels, packed, and its scales; of those in ``sparse`` by
    the places of levels that aren't 0, and these alone."""
    packed = dict(state)
    for name, own in rounded.items():
        levels, _ = own.values(packed.pop(name).float().reshape(len(own.scales), -1))
        levels, form = levels.to(torch.int8), FORMS[own.bits]
        packed[name + SCALES] = own.scales.to(form.scales)
        if name in sparse:
            packed[name + MASK], levels = places_and_values(levels)
        packed[name + LEVELS] = _halved(levels) if form.bits == 4 else levels
    return packed


def unpack(
    state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], where: str
) -> tuple[dict[str, Tensor], dict[str, Rounded]]:
    """What ``pack`` was given, and how its rounded weights are stored.

    Args:
        state: what it returned.
        shapes: shapes of the rounded weights, by name.
        where: the file that errors name.

    Raises:
        ModelError: levels or scales are missing, of another type, or don't make up the shape.
    """
    whole, found = dict(state), {}
    for name, shape in shapes.items():
        if name + LEVELS not in whole or name + SCALES not in whole:
            raise ModelError(f"{where}: {name}: its levels or scales are missing; save it again")
        levels, scales = whole.pop(name + LEVELS), whole.pop(name + SCALES)
        places, size = whole.pop(name + MASK, None), int(numpy.prod(shape))
        types = (levels.dtype, scales.dtype)
        form = next((f for f in FORMS.values() if types == (f.stored, f.scales)), None)
        flat = levels.flatten()
        if form is not None and form.bits == 4:
            flat = _doubled(flat, size if places is None else number_kept(places))
        if places is not None:
            flat = at_their_places(places, flat, [size], f"{where}: {name}")
        by_row = list(scales.shape[:1]) == list(shape[:1]) and scales.dim() == 2
        if form is None or not by_row or len(flat) != size or not scales.numel():
            raise ModelError(
                f"{where}: {name}: {len(flat)} levels and {scales.numel()} scales, {levels.dtype} "
                f"and {scales.dtype}, don't make up {list(shape)}; the file is damaged"
            )
        found[name], rows = Rounded(form.bits, scales.float()), flat.view(shape[0], -1).float()
        whole[name] = (rows * by_number(scales, rows.shape[1])).view(*shape)
    return whole, found


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
