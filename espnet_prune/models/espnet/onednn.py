"""Linear layers and convolutions of inference in float32 on a CPU, by oneDNN where torch has it.

torch multiplies float32 matrices by MKL. On an AMD EPYC of Zen 5, one thread, that reaches 100
GFLOP/s, and oneDNN 200 to 240, for whatever widths; on one of Zen 3 MKL is the faster. oneDNN also
takes milliseconds to prepare each shape that it hasn't multiplied yet, and a cut model has a
hundred of them, for every length of a recording. So it gets products only where a trial, made once,
finds it much faster. torch leaves oneDNN out of small convolutions, too. The operators called here
are the ones that torch's own compiler emits on a CPU; the numbers are the same up to rounding.
"""

import functools
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.sites.low_rank import LowRankLinear

# Activations that oneDNN applies while it writes a result, by the name of their class.
FUSED = {"Swish": "swish", "SiLU": "swish", "ReLU": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}


def has_onednn() -> bool:
    """Whether this torch has oneDNN and the two operators."""
    operators = ("_linear_pointwise", "_convolution_pointwise")
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in operators
    )


ONEDNN = has_onednn()
TRIED, TRIALS = 256, 5  # size of the matrices of the trial, and how often each is multiplied
WORTH = 1.5  # how many times as fast as MKL oneDNN has to be


@functools.cache
def is_worth_it() -> bool:
    """Whether oneDNN multiplies matrices so much faster than MKL on this processor."""
    x, weight = torch.ones(TRIED, TRIED), torch.ones(TRIED, TRIED)
    least = [float("inf"), float("inf")]
    for _ in range(TRIALS + 1):  # the first of each prepares
        for index, multiply in enumerate((F.linear, _multiplied)):
            begun = time.perf_counter()
            multiply(x, weight)
            least[index] = min(least[index], time.perf_counter() - begun)
    return least[0] > WORTH * least[1]


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: nn.Module | None = None
) -> Tensor:
    """A linear layer and what follows it, without gradients.

    Args:
        x: (T, inputs), float32 on the CPU.
        weight: (outputs, inputs).
        bias: (outputs,).
        activation: applied to the product, if any; one without parameters.

    Returns:
        (T, outputs).
    """
    if not _multiplies(weight):
        return _activated(F.linear(x, weight, bias), activation)
    fused, left = _split(activation)
    return _activated(_multiplied(x, weight, bias, fused), left)


def _multiplied(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none"
) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")


def apply(layer: nn.Module, x: Tensor, activation: nn.Module | None = None) -> Tensor:
    """``linear`` by a Linear, also in int8 or as two, or by a Conv1d whose kernel is 1."""
    if isinstance(layer, LowRankLinear):
        y = apply(layer.first, x)
        if layer.shared is None:
            return apply(layer.second, y, activation)
        return _activated(add(layer.second, y, linear(x, layer.shared)), activation)
    if not isinstance(layer.weight, Tensor):  # int8, whose weights are packed
        return _activated(layer(x), activation)
    return linear(x, layer.weight.flatten(1), layer.bias, activation)


def add(layer: nn.Module, x: Tensor, residual: Tensor) -> Tensor:
    """``apply``, added to ``residual`` (T, outputs) as oneDNN writes it: no pass of its own."""
    if isinstance(layer, LowRankLinear):
        if layer.shared is not None:
            residual = add_product(x, layer.shared, residual)
        return add(layer.second, apply(layer.first, x), residual)
    if not isinstance(layer.weight, Tensor):
        return residual + apply(layer, x)
    return add_product(x, layer.weight.flatten(1), residual, layer.bias)


def add_product(x: Tensor, weight: Tensor, residual: Tensor, bias: Tensor | None = None) -> Tensor:
    """``linear`` of a weight (outputs, inputs), added to ``residual`` (T, outputs)."""
    if not _multiplies(weight):
        return residual + linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise.binary(x, residual, weight, bias, "add")


def convolve(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: nn.Module,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Tensor:
    """A convolution of an image, channels last, and its activation, without gradients.

    Args:
        image: (1, inputs, height, width), float32 on the CPU.
        weight: (outputs, inputs / groups, its height, its width).
        bias: (outputs,).
        activation: applied to the result; one without parameters.
        stride: strides of height and width.
        padding: padding of height and width, zeros.
        groups: number of groups of channels.

    Returns:
        (1, outputs, new height, new width), channels last.
    """
    if not ONEDNN:
        y = F.conv2d(image, weight, bias, stride, padding, groups=groups)
        return _activated(y, activation)
    fused, left = _split(activation)
    y = torch.ops.mkldnn._convolution_pointwise(
        image, weight, bias, padding, stride, (1, 1), groups, fused, [], ""
    )
    return _activated(y, left)


def _multiplies(weight: Tensor) -> bool:
    """Whether oneDNN gets this product; it takes none with empty weights."""
    return ONEDNN and weight.numel() > 0 and is_worth_it()


def _split(activation: nn.Module | None) -> tuple[str, nn.Module | None]:
    """What oneDNN does of an activation, and what is left to do."""
    if activation is None:
        return "none", None
    fused = FUSED.get(type(activation).__name__)
    return ("none", activation) if fused is None else (fused, None)


def _activated(y: Tensor, activation: nn.Module | None) -> Tensor:
    return y if activation is None else activation(y)
