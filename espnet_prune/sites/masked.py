"""Layers whose weights are scaled by a mask where they are read.

A mask on a layer's inputs equals a scale on its weight's input columns:
``linear(x * z) == x @ (W * z)``. Scaling the weight costs far less than scaling the activations
(its size doesn't grow with batch and time), keeps parameter names, is bitwise the stock layer when
the mask is all ones, and is exactly what the cut folds in.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Masked:
    """Mixin: ``input_scale`` (inputs,) on weight columns, ``output_scale`` () on the output.

    ``weight_mask``, of the weight's shape, acts on single weights.
    """

    input_scale: Tensor | None
    output_scale: Tensor | None
    weight_mask: Tensor | None

    def scaled(self) -> tuple[Tensor, Tensor | None]:
        weight, bias = self.weight, self.bias
        if self.weight_mask is not None:
            weight = weight * self.weight_mask.to(weight.dtype)
        if self.input_scale is not None:
            shape = (1, -1) + (1,) * (weight.dim() - 2)
            weight = weight * self.input_scale.to(weight.dtype).view(shape)
        if self.output_scale is not None:
            weight = weight * self.output_scale.to(weight.dtype)
            bias = None if bias is None else bias * self.output_scale.to(bias.dtype)
        return weight, bias


class MaskedLinear(_Masked, nn.Linear):
    """A linear layer with scales; made in place by ``attach``."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return F.linear(x, *self.scaled())


class MaskedConv1d(_Masked, nn.Conv1d):
    """A one-dimensional convolution with scales."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T) -> (B, outputs, T')."""
        return self._conv_forward(x, *self.scaled())


class MaskedConv2d(_Masked, nn.Conv2d):
    """A two-dimensional convolution with scales."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, F) -> (B, outputs, T', F')."""
        return self._conv_forward(x, *self.scaled())


_MASKED = {nn.Linear: MaskedLinear, nn.Conv1d: MaskedConv1d, nn.Conv2d: MaskedConv2d}
_STOCK = {masked: stock for stock, masked in _MASKED.items()}


def attach(layer: nn.Module) -> None:
    """Turns a stock layer into its masked kind, in place; parameters stay as they are.

    Raises:
        TypeError: the layer is none of Linear, Conv1d, Conv2d.
    """
    if type(layer) in _STOCK:
        return
    if type(layer) not in _MASKED:
        raise TypeError(f"{type(layer).__name__} can't be masked; expected {list(_MASKED)}")
    layer.__class__ = _MASKED[type(layer)]
    clear(layer)


def clear(layer: nn.Module) -> None:
    """Forgets the scales; the layer then computes what the stock one does."""
    layer.input_scale = None
    layer.output_scale = None
    layer.weight_mask = None


def scale_inputs(layer: nn.Module, values: Tensor, first: int = 0) -> None:
    """Multiplies the scale of some inputs of a masked layer, for as long as masks act.

    Args:
        layer: one that is attached; several sites may share it.
        values: (inputs,), factors.
        first: the first of the layer's inputs that they are for.
    """
    own = layer.input_scale
    if own is None:
        own = values.new_ones(layer.weight.shape[1])
    last = first + len(values)
    layer.input_scale = torch.cat([own[:first], own[first:last] * values, own[last:]])


def detach(layer: nn.Module) -> None:
    """Turns a masked layer back into its stock kind, in place."""
    if type(layer) in _STOCK:
        del layer.input_scale, layer.output_scale, layer.weight_mask
        layer.__class__ = _STOCK[type(layer)]


@torch.no_grad()
def keep_outputs(layer: nn.Module, kept: Tensor) -> None:
    """Cuts a layer's outputs to the indices ``kept``, weight rows and bias."""
    layer.weight = nn.Parameter(layer.weight[kept].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias[kept].clone())
    name = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    setattr(layer, name, len(kept))


@torch.no_grad()
def keep_inputs(layer: nn.Module, kept: Tensor, values: Tensor) -> None:
    """Cuts a layer's inputs to ``kept`` and folds in the mask's ``values``, both (kept,)."""
    shape = (1, -1) + (1,) * (layer.weight.dim() - 2)
    weight = layer.weight[:, kept] * values.to(layer.weight).view(shape)
    layer.weight = nn.Parameter(weight)
    name = "in_features" if isinstance(layer, nn.Linear) else "in_channels"
    setattr(layer, name, len(kept))


@torch.no_grad()
def scale_output(layer: nn.Module, value: Tensor) -> None:
    """Folds a branch's mask value into its last layer, weight and bias."""
    layer.weight.mul_(value.to(layer.weight))
    if layer.bias is not None:
        layer.bias.mul_(value.to(layer.bias))
