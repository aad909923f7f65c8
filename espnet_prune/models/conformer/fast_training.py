"""A Conformer encoder's training pass, the same numbers and gradients sooner on a CPU.

ESPnet's modules stay; three of them get a forward of their own, which computes what the stock one
does in another order and another layout of memory:

- the convolution module keeps time before channels: its pointwise convolutions are products of
  matrices, its depthwise one reads channels last, and a norm whose statistics are frozen is a
  factor on the depthwise weights;
- attention makes queries, keys and values by one product, looks at relative positions by a
  product a head for the whole batch, and hides padding by one more number of each query and key;
- the front-end keeps channels last: its first convolution is a product of matrices, its second
  one computes each of its three products in the layout that oneDNN is fastest with (the weights'
  gradient alone with channels first), and a rectifier's gradient is brought into the layout of
  what it said before the two are compared.

Masks of gates act as before, since every weight is taken as its layer would use it.
"""

import functools
from collections.abc import Callable

import torch
from espnet2.legacy.nets.pytorch_backend.conformer.convolution import ConvolutionModule
from espnet2.legacy.nets.pytorch_backend.transformer.attention import (
    RelPositionMultiHeadedAttention,
)
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.surgery.inputs import windows_of

FORWARD = "forward"
HIDDEN = -1e9  # added to the scores of padded keys


def speed_up_training(encoder: nn.Module) -> int:
    """Gives the parts of an encoder that this module knows their faster forward, in place.

    Parameters and their names stay as they are. On a GPU, whose own kernels are faster, each part
    goes ESPnet's way.

    Args:
        encoder: gated or not, dense or cut.

    Returns:
        How many parts were found.
    """
    parts = 0
    for module in encoder.modules():
        forward = _forward_of(module)
        if forward is not None:
            module.forward = functools.partial(forward, module)
            parts += 1
    return parts


def slow_down_training(encoder: nn.Module) -> None:
    """Takes ``speed_up_training`` back."""
    for module in encoder.modules():
        if isinstance(module.__dict__.get(FORWARD), functools.partial):
            del module.forward


def _forward_of(module: nn.Module) -> Callable | None:
    """The faster forward of a part; None for all others."""
    if type(module) is ConvolutionModule and type(module.norm) is nn.BatchNorm1d:
        return _convolution
    if type(module) is RelPositionMultiHeadedAttention and not module.zero_triu:
        return _attention
    if isinstance(module, nn.Conv2d) and _is_plain(module):
        return _front_end_convolution
    if type(module) is nn.ReLU:
        return _rectified
    return None


def _is_plain(layer: nn.Conv2d) -> bool:
    """Whether a convolution is one of a front-end's."""
    return (
        layer.bias is not None
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and not isinstance(layer.padding, str)
        and layer.padding_mode == "zeros"
    )


def _weights(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias as the layer uses them, a gate's mask included."""
    return layer.scaled() if hasattr(layer, "scaled") else (layer.weight, layer.bias)


def _on_cpu(module: nn.Module, x: Tensor) -> bool:
    return x.device.type == "cpu"


def _pointwise(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution of width 1 over (B, T, inputs) -> (B, T, outputs)."""
    weight, bias = _weights(layer)
    return F.linear(x, weight[:, :, 0], bias)


def _convolution(module: ConvolutionModule, x: Tensor, mask_pad: Tensor | None = None) -> Tensor:
    """(B, T, D), and the mask of real frames (B, 1, T) -> (B, T, D)."""
    if not _on_cpu(module, x):
        return ConvolutionModule.forward(module, x, mask_pad)
    x = F.glu(_pointwise(module.pointwise_conv1, x), dim=-1)
    if mask_pad is not None:
        x = x.masked_fill(mask_pad.transpose(1, 2).eq(0), 0.0)
    weight, bias = _weights(module.depthwise_conv)
    norm = module.norm
    if not norm.training:
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        weight = weight * scale[:, None, None]
        bias = shift if bias is None else shift + bias * scale
    x = _depthwise(module.depthwise_conv, x, weight, bias)
    if norm.training:
        x = norm(x.reshape(-1, x.shape[-1])).view(x.shape)
    return _pointwise(module.pointwise_conv2, module.activation(x))


def _depthwise(layer: nn.Conv1d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, T, C) -> (B, T, C), over an image of height 1 whose channels are last."""
    image = x[:, None].permute(0, 3, 1, 2)
    padding = (0, layer.padding[0])
    image = F.conv2d(image, weight[:, :, None], bias, padding=padding, groups=len(weight))
    return image.permute(0, 2, 3, 1)[:, 0]


def _attention(
    module: RelPositionMultiHeadedAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pos_emb: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """Self-attention (B, T, D), the table of positions (1, 2 T - 1, D), the mask (B, 1, T)."""
    if not _on_cpu(module, query) or query is not key or key is not value:
        stock = RelPositionMultiHeadedAttention.forward
        return stock(module, query, key, value, pos_emb, mask)
    heads, width = module.h, module.d_k
    batch, frames, _ = query.shape
    q, k, v = _projected(module, query)
    by_content = ((q + module.pos_bias_u) * width**-0.5).transpose(1, 2)
    by_position = ((q + module.pos_bias_v) * width**-0.5).permute(2, 0, 1, 3)
    weight, _ = _weights(module.linear_pos)
    positions = F.linear(pos_emb[0], weight).view(-1, heads, width).permute(1, 2, 0)
    distances = torch.bmm(by_position.reshape(heads, batch * frames, width), positions)
    distances = distances.view(heads, batch, frames, -1).transpose(0, 1)
    keys = k.transpose(1, 2)
    if mask is not None:
        by_content, keys = _with_padding(by_content, keys, mask)
    scores = torch.baddbmm(
        _Shifted.apply(distances).flatten(0, 1), by_content.flatten(0, 1), keys.flatten(0, 1).mT
    )
    attended = module.dropout(torch.softmax(scores, dim=-1))
    seen = torch.bmm(attended, v.transpose(1, 2).flatten(0, 1)).view(batch, heads, frames, width)
    return module.linear_out(seen.transpose(1, 2).reshape(batch, frames, heads * width))


def _with_padding(queries: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """One number more a query and key (B, H, T, d_k), whose product hides the padded keys."""
    hidden = (~mask.transpose(1, 2).bool()).to(keys.dtype) * HIDDEN
    hidden = hidden[:, None].expand(*keys.shape[:3], 1)
    ones = torch.ones_like(queries[..., :1])
    return torch.cat([queries, ones], dim=-1), torch.cat([keys, hidden], dim=-1)


def _projected(module: RelPositionMultiHeadedAttention, x: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values, (B, T, H, d_k) each, by one product."""
    layers = [_weights(layer) for layer in (module.linear_q, module.linear_k, module.linear_v)]
    weight, bias = (torch.cat(tensors) for tensors in zip(*layers, strict=True))
    made = F.linear(x, weight, bias).view(*x.shape[:2], 3, module.h, module.d_k)
    return made.unbind(dim=2)


class _Shifted(torch.autograd.Function):
    """Scores by distance (B, H, T, 2 T - 1) seen by key, (B, H, T, T)."""

    @staticmethod
    def forward(ctx, scores: Tensor) -> Tensor:
        ctx.shape = scores.shape
        return _by_key(scores)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        of_scores = gradient.new_zeros(ctx.shape)
        _by_key(of_scores).copy_(gradient)
        return of_scores


def _by_key(scores: Tensor) -> Tensor:
    """A view: row r begins with the distance to key 0, which is T - 1 - r places in."""
    frames = scores.shape[2]
    batch, head, row, _ = scores.stride()
    offset = scores.storage_offset() + frames - 1
    return scores.as_strided((*scores.shape[:3], frames), (batch, head, row - 1, 1), offset)


def _rectified(layer: nn.ReLU, x: Tensor) -> Tensor:
    """A rectifier, which a front-end has between its convolutions."""
    if x.dim() != 4 or not _on_cpu(layer, x):
        return nn.ReLU.forward(layer, x)
    return _Rectified.apply(x)


class _Rectified(torch.autograd.Function):
    """A rectifier whose gradient is in the layout of its output."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        said = F.relu(x)
        ctx.save_for_backward(said)
        return said

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (said,) = ctx.saved_tensors
        if said.is_contiguous(memory_format=torch.channels_last):
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        return torch.ops.aten.threshold_backward(gradient, said, 0)


def _front_end_convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A front-end's convolution, (B, C, T, F) -> (B, C', T', F'); its first one has C = 1."""
    weight, bias = _weights(layer)
    if not _on_cpu(layer, x):
        return F.conv2d(x, weight, bias, layer.stride, layer.padding)
    if layer.in_channels == 1:
        return F.linear(windows_of(layer, x), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return _MixedLayouts.apply(x, weight, bias, layer.stride, layer.padding)


class _MixedLayouts(torch.autograd.Function):
    """A convolution whose products are each computed in their fastest layout."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        x, weight = (t.to(memory_format=torch.channels_last) for t in (x, weight))
        ctx.save_for_backward(x, weight)
        ctx.options = ([len(bias)], stride, padding, (1, 1), False, (0, 0), 1)
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        backward = torch.ops.aten.convolution_backward
        last = gradient.to(memory_format=torch.channels_last)
        of_input = backward(last, x, weight, *ctx.options, (True, False, False))[0]
        first = [t.contiguous() for t in (gradient, x, weight)]
        _, of_weight, of_bias = backward(*first, *ctx.options, (False, True, True))
        return of_input, of_weight, of_bias, None, None
