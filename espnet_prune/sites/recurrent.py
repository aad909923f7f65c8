"""Hidden units of a recurrent layer, an LSTM or a GRU: rows of all its gates, columns of readers.

A unit is read twice: by the layer itself at the next step, and by the layer above. A mask scales
both, at the columns that read the unit; what happens inside the unit stays as it is. So masked
equals cut for soft masks too.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from espnet_prune.sites import masked
from espnet_prune.sites.base import FEED_FORWARD_UNIT, Site

READ_BELOW, READ_AGAIN = "weight_ih_l0", "weight_hh_l0"  # torch's names of a layer's matrices
BIASES = ("bias_ih_l0", "bias_hh_l0")
LAYERS = (nn.LSTM, nn.GRU)


class GoneRecurrent(nn.Module):
    """Stands where a recurrent layer without units was: gives nothing, keeps no state."""

    hidden_size = 0

    def forward(self, sequence: Tensor, hx: object) -> tuple[Tensor, object]:
        """(B, L, D) -> (B, L, 0), and the empty state as it is."""
        return sequence.new_zeros(*sequence.shape[:2], 0), hx


class _Masked:
    """Mixin: ``input_scale`` (inputs,) and ``hidden_scale`` (units,) on what reads them."""

    input_scale: Tensor | None
    hidden_scale: Tensor | None

    def forward(self, sequence: Tensor, hx: object = None) -> tuple:
        """As torch's, by the scaled matrices."""
        self._update_flat_weights()  # which torch's does too: weights may be others than before
        own = self._flat_weights
        scales = (self.input_scale, self.hidden_scale, None, None)
        try:
            self._flat_weights = [_scaled(w, scale) for w, scale in zip(own, scales, strict=True)]
            return super().forward(sequence, hx)
        finally:
            self._flat_weights = own


class MaskedLSTM(_Masked, nn.LSTM):
    """An LSTM with scales; made in place by ``attach``."""


class MaskedGRU(_Masked, nn.GRU):
    """A GRU with scales."""


_MASKED = {nn.LSTM: MaskedLSTM, nn.GRU: MaskedGRU}
_STOCK = {kind: stock for stock, kind in _MASKED.items()}


def _scaled(weight: Tensor, scale: Tensor | None) -> Tensor:
    return weight if scale is None else weight * scale.to(weight)


def _attach(layer: nn.Module) -> None:
    if type(layer) in _MASKED:
        layer.__class__ = _MASKED[type(layer)]
        layer.input_scale = layer.hidden_scale = None
    elif type(layer) not in _STOCK:
        masked.attach(layer)


def _detach(layer: nn.Module) -> None:
    if type(layer) in _STOCK:
        del layer.input_scale, layer.hidden_scale
        layer.__class__ = _STOCK[type(layer)]
    else:
        masked.detach(layer)


class RecurrentSite(Site):
    """The hidden units of one layer of a single direction.

    Args:
        name: the site's name.
        block: index of its block.
        layer: an LSTM or a GRU of one layer.
        reader: the linear or recurrent layer above, which reads the units; None where the model
            around is still to be built.
        replace: puts another module in the layer's place.
    """

    def __init__(
        self,
        name: str,
        block: int,
        layer: nn.RNNBase,
        reader: nn.Module | None,
        replace: Callable[[nn.Module], None],
    ) -> None:
        super().__init__(name, FEED_FORWARD_UNIT, layer.hidden_size, block)
        self.layer = layer
        self.read_by = reader
        self.replace = replace

    @property
    def gates(self) -> int:
        """Rows of each matrix that make a unit: 4 of an LSTM, 3 of a GRU."""
        return len(self.layer.weight_hh_l0) // self.units

    def attach(self) -> None:
        _attach(self.layer)
        _attach(self.read_by)

    def apply(self, mask: Tensor) -> None:
        self.layer.hidden_scale = mask
        self.read_by.input_scale = mask

    def clear(self) -> None:
        if type(self.layer) in _STOCK:
            self.layer.hidden_scale = self.read_by.input_scale = None

    def detach(self) -> None:
        _detach(self.layer)
        _detach(self.read_by)

    def unit_weights(self) -> list[Tensor]:
        rows = [self._by_gate(getattr(self.layer, name)) for name in (READ_BELOW, READ_AGAIN)]
        reading = [self.layer.weight_hh_l0.T, self._reading().T]
        return [chunk for chunks in rows for chunk in chunks] + reading

    def made_by(self) -> list[Tensor]:
        names = (READ_BELOW, READ_AGAIN, *BIASES)
        return [c for n in names for c in self._by_gate(getattr(self.layer, n).detach())]

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Cuts the rows of all gates and the columns of both readers; without units the layer."""
        if self.read_by is not None:
            self._cut_reader(kept, values)
        if not len(kept):
            self.replace(GoneRecurrent())
            return
        rows = torch.cat([kept + gate * self.units for gate in range(self.gates)])
        again = self.layer.weight_hh_l0[rows][:, kept] * values.to(self.layer.weight_hh_l0)
        for name in (READ_BELOW, *BIASES):
            setattr(self.layer, name, nn.Parameter(getattr(self.layer, name)[rows].clone()))
        self.layer.weight_hh_l0 = nn.Parameter(again)
        self.layer.hidden_size = len(kept)

    def _cut_reader(self, kept: Tensor, values: Tensor) -> None:
        if isinstance(self.read_by, nn.Linear):
            masked.keep_inputs(self.read_by, kept, values)
            return
        weight = self._reading()[:, kept] * values.to(self._reading())
        self.read_by.weight_ih_l0 = nn.Parameter(weight)
        self.read_by.input_size = len(kept)

    def _reading(self) -> Tensor:
        """The reader's matrix (outputs, units)."""
        reader = self.read_by
        return reader.weight if isinstance(reader, nn.Linear) else reader.weight_ih_l0

    def _by_gate(self, tensor: Tensor) -> list[Tensor]:
        """(gates * units, ...) -> views (units, ...) of each gate."""
        return [chunk.view(self.units, -1) for chunk in tensor.chunk(self.gates)]
