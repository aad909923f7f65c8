"""A Conformer encoder's pass over one recording, the same numbers sooner.

What a cut leaves of ESPnet's encoder spends much of its time on what no cut makes smaller. Here:

- linear layers and pointwise convolutions go through ``onednn``;
- time stands before channels throughout, so that nothing is transposed, and depthwise and front-end
  convolutions find their channels last, the order that oneDNN wants;
- the front-end and attention take a piece of time after the other, which stays in a cache: without
  pieces, memory of tens of megabytes is asked of the system anew at each call;
- attention goes a head and a piece of queries after the other, so that its products are oneDNN's
  too; a piece looks at the positions that it needs, half of all, and the shift of relative
  positions is a view, no copy; there is no padding to fill in; short recordings take all heads at
  once, since a product a head costs more calls than it saves;
- projections of positions are kept from one recording to the next;
- the depthwise convolution's norm is folded into its weights;
- attention's and the convolution's input is added while their last product is written.

Nothing is copied of the weights. Batches, training and gradients go ESPnet's own way.
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.legacy.nets.pytorch_backend.conformer.convolution import ConvolutionModule
from espnet2.legacy.nets.pytorch_backend.conformer.encoder_layer import EncoderLayer
from espnet2.legacy.nets.pytorch_backend.transformer.attention import (
    RelPositionMultiHeadedAttention,
)
from espnet2.legacy.nets.pytorch_backend.transformer.embedding import RelPositionalEncoding
from espnet2.legacy.nets.pytorch_backend.transformer.positionwise_feed_forward import (
    PositionwiseFeedForward,
)
from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import (
    Conv2dSubsampling,
    check_short_utt,
)
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.models.espnet.front_end import subsampling_of
from espnet_prune.models.espnet.onednn import add, apply, convolve, linear
from espnet_prune.sites.branch import GoneBranch

FRONT_END_FRAMES = 32  # after subsampling, through the convolutions at once
PROJECTED_FRAMES = 512  # then through the last layer, whose weights fit no cache
BY_HEAD_FRAMES = 200  # from here on (8 s), a product a head is faster than one of all heads
QUERIES = 192  # of a head taken at once: by 1000 frames (40 s), float32, these are 0.8 MB
LONGEST_KEPT = 1024  # frames: positions of longer recordings are projected anew (40 s are 1000)
KERNEL, STRIDE = 3, 2  # of both convolutions of the front-end
FORWARD = "forward"


def speed_up(encoder: nn.Module) -> bool:
    """Lets an encoder take the faster way for single recordings, by its ``forward`` alone.

    Args:
        encoder: in evaluation mode; its parameters and their names stay as they are.

    Returns:
        Whether it is of a kind that this module knows; else it stays as it is.
    """
    if not _known(encoder):
        return False
    encoder.forward = _FastForward(encoder)
    return True


def slow_down(encoder: nn.Module) -> None:
    """Takes ``speed_up`` back."""
    encoder.__dict__.pop(FORWARD, None)


@contextmanager
def as_espnet(encoder: nn.Module) -> Iterator[None]:
    """ESPnet's own forward for a while: to count its products, or to time it."""
    fast = encoder.__dict__.pop(FORWARD, None)
    try:
        yield
    finally:
        if fast is not None:
            encoder.forward = fast


def is_fast(encoder: nn.Module) -> bool:
    """Whether ``speed_up`` has been here."""
    return isinstance(encoder.__dict__.get(FORWARD), _FastForward)


class _FastForward:
    """What stands for an encoder's ``forward``.

    Args:
        encoder: an encoder of the kind that ``speed_up`` knows.
    """

    def __init__(self, encoder: ConformerEncoder) -> None:
        self.encoder = encoder
        self.positions: dict[nn.Module, _Positions] = {}

    def __call__(
        self, feats: Tensor, lengths: Tensor, *rest: object, **options: object
    ) -> tuple[Tensor, Tensor, None]:
        """(1, T, F) features and lengths (1,) -> encoded (1, T', D), lengths (1,), nothing."""
        if rest or options or not self._takes(feats, lengths):
            return type(self.encoder).forward(self.encoder, feats, lengths, *rest, **options)
        encoder = self.encoder
        x, table = _embed(encoder.embed, feats)
        for layer in encoder.encoders:
            positions = self.positions.setdefault(layer, _Positions())
            x = _block(layer, x, functools.partial(positions.project, layer.self_attn, table))
        x = encoder.after_norm(x)
        return x[None], lengths.new_tensor([len(x)]), None

    def _takes(self, feats: Tensor, lengths: Tensor) -> bool:
        """Whether this input goes the faster way."""
        encoder = self.encoder
        return (
            len(feats) == 1
            and int(lengths[0]) == feats.shape[1]
            and not check_short_utt(encoder.embed, feats.shape[1])[0]
            and not torch.is_grad_enabled()
            and not encoder.training
            and all(
                t.dtype == torch.float32 and t.device.type == "cpu"
                for t in (feats, next(encoder.parameters()))  # linear layers may be int8
            )
            and not any(m._forward_hooks or m._forward_pre_hooks for m in encoder.modules())
        )


def _embed(embed: Conv2dSubsampling, feats: Tensor) -> tuple[Tensor, Tensor]:
    """Features (1, T, F) -> (T', D), and the table of relative positions (2 T' - 1, D)."""
    if isinstance(embed.conv, nn.Sequential):
        frames = subsampling_of(embed).lengths(feats.shape[1])[-1]
        # `contiguous` would leave a size of 1 its strides, by which convolutions choose the order
        weights = [embed.conv[i].weight.to(memory_format=torch.channels_last) for i in (0, 2)]
        parts = []
        for first in range(0, frames, PROJECTED_FRAMES):
            last = min(first + PROJECTED_FRAMES, frames)
            pieces = [
                _piece(embed, weights, feats, begin, min(begin + FRONT_END_FRAMES, last))
                for begin in range(first, last, FRONT_END_FRAMES)
            ]
            parts.append(apply(embed.out, torch.cat(pieces)))
        x, table = embed.pos_enc(torch.cat(parts)[None])
    else:
        (x, table), _ = embed(feats, None)
    return x[0], table[0]


def _piece(
    embed: Conv2dSubsampling, weights: list[Tensor], feats: Tensor, first: int, last: int
) -> Tensor:
    """Both convolutions, whose weights have channels last, for some output frames.

    Returns:
        (last - first, C F''), each channel's frequencies together.
    """
    front_end = subsampling_of(embed)
    padding = front_end.padding
    between = front_end.lengths(feats.shape[1])[0]  # frames after the first convolution
    begin, end = _read(first, last, padding)
    x = _stretch(feats[:, None], *_read(max(begin, 0), min(end, between), padding))
    x = _convolve(embed.conv, 0, weights[0], x, padding)
    x = F.pad(x, (0, 0, max(0, -begin), max(0, end - between)))
    x = _convolve(embed.conv, 2, weights[1], x, padding)
    return x.permute(0, 2, 1, 3).reshape(last - first, -1)


def _read(first: int, last: int, padding: int) -> tuple[int, int]:
    """The frames that a convolution reads for its outputs ``first`` to ``last``, without it."""
    return STRIDE * first - padding, STRIDE * (last - 1) - padding + KERNEL


def _stretch(x: Tensor, begin: int, end: int) -> Tensor:
    """Frames ``begin`` to ``end`` of (1, 1, T, F), zeros where there are none."""
    frames = x.shape[2]
    return F.pad(x[:, :, max(begin, 0) : end], (0, 0, max(0, -begin), max(0, end - frames)))


def _convolve(layers: nn.Sequential, index: int, weight: Tensor, x: Tensor, padding: int) -> Tensor:
    """One convolution and its activation; in time, what pads ``x`` is in it."""
    layer, x = layers[index], x.to(memory_format=torch.channels_last)
    return convolve(x, weight, layer.bias, layers[index + 1], layer.stride, (0, padding))


def _block(layer: EncoderLayer, x: Tensor, positions: Callable[[], Tensor]) -> Tensor:
    """One block, (T, D) -> (T, D); ``positions`` gives its projected table. Changes ``x``."""
    if layer.feed_forward_macaron is not None:
        y = _feed_forward(layer.feed_forward_macaron, layer.norm_ff_macaron(x))
        x = x.add_(y, alpha=layer.ff_scale)
    if not isinstance(layer.self_attn, GoneBranch):
        x = _attention(layer.self_attn, layer.norm_mha(x), positions(), x)
    if not isinstance(layer.conv_module, GoneBranch):
        x = _convolution(layer.conv_module, layer.norm_conv(x), x)
    if not isinstance(layer.feed_forward, GoneBranch):
        y = _feed_forward(layer.feed_forward, layer.norm_ff(x))
        x = x.add_(y, alpha=layer.ff_scale)
    return layer.norm_final(x)


def _feed_forward(module: PositionwiseFeedForward, x: Tensor) -> Tensor:
    return apply(module.w_2, apply(module.w_1, x, module.activation))


def _convolution(module: ConvolutionModule, x: Tensor, residual: Tensor) -> Tensor:
    """(T, D) -> (T, D), plus ``residual``; the depthwise one is over an image of height 1."""
    x = F.glu(apply(module.pointwise_conv1, x), dim=-1)
    depthwise, norm = module.depthwise_conv, module.norm
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    weight = depthwise.weight * scale[:, None, None]
    bias = shift if depthwise.bias is None else shift + depthwise.bias * scale
    image = x[None, None].permute(0, 3, 1, 2)  # (1, C, 1, T), channels last
    padding = (0, depthwise.padding[0])
    options = {"padding": padding, "groups": len(weight)}
    image = convolve(image, weight[:, :, None], bias, module.activation, **options)
    x = image.permute(0, 2, 3, 1).reshape(len(x), -1)
    return add(module.pointwise_conv2, x, residual)


class _Positions:
    """One block's projected table of relative positions, kept for the longest recording so far."""

    def __init__(self) -> None:
        self.made_from: tuple[Tensor, int] | None = None
        self.projected: Tensor | None = None

    def project(self, attention: RelPositionMultiHeadedAttention, table: Tensor) -> Tensor:
        """(2 T - 1, D) -> (H, 2 T - 1, d_k); the middle of a longer one is the same."""
        weight = attention.linear_pos.weight
        if self._holds(weight) and self.projected.shape[1] >= len(table):
            left = (self.projected.shape[1] - len(table)) // 2
            return self.projected[:, left : left + len(table)]
        heads = linear(table, weight).view(len(table), attention.h, attention.d_k)
        projected = heads.transpose(0, 1).contiguous()
        if len(table) < 2 * LONGEST_KEPT:
            self.made_from, self.projected = (weight, weight._version), projected
        return projected

    def _holds(self, weight: Tensor) -> bool:
        """Whether what is kept was made by this weight as it is now."""
        if self.made_from is None:
            return False
        made_by, version = self.made_from
        return made_by is weight and version == weight._version


def _attention(
    attention: RelPositionMultiHeadedAttention, x: Tensor, positions: Tensor, residual: Tensor
) -> Tensor:
    """Self-attention of (T, D), projected positions (H, 2 T - 1, d_k), plus ``residual``."""
    shape = (len(x), attention.h, attention.d_k)
    scale = attention.d_k**-0.5
    q = apply(attention.linear_q, x).view(shape)
    by_content = ((q + attention.pos_bias_u) * scale).transpose(0, 1)
    by_position = ((q + attention.pos_bias_v) * scale).transpose(0, 1)
    keys = apply(attention.linear_k, x).view(shape).transpose(0, 1)
    values = apply(attention.linear_v, x).view(shape).permute(1, 2, 0)
    attend = _all_heads if len(x) < BY_HEAD_FRAMES else _by_head
    out = attend(by_content, by_position, keys, values, positions)
    return add(attention.linear_out, out, residual)


def _all_heads(
    by_content: Tensor, by_position: Tensor, keys: Tensor, values: Tensor, positions: Tensor
) -> Tensor:
    """What all heads see of a short recording.

    Args:
        by_content: (H, T, d_k), scaled queries.
        by_position: (H, T, d_k), the same for positions.
        keys: (H, T, d_k).
        values: (H, d_k, T).
        positions: (H, 2 T - 1, d_k).

    Returns:
        (T, H d_k).
    """
    scores = torch.bmm(by_content, keys.transpose(1, 2))
    scores += _shifted(torch.bmm(by_position, positions.transpose(1, 2)))
    seen = torch.bmm(torch.softmax(scores, dim=-1), values.transpose(1, 2))
    return seen.transpose(0, 1).reshape(keys.shape[1], -1)


def _by_head(
    by_content: Tensor, by_position: Tensor, keys: Tensor, values: Tensor, positions: Tensor
) -> Tensor:
    """The same as ``_all_heads``, in pieces of about as many queries each."""
    heads, frames, size = keys.shape
    out = keys.new_empty(frames, heads, size)
    queries = math.ceil(frames / math.ceil(frames / QUERIES))
    by_content, by_position, keys, values = (
        t.contiguous() for t in (by_content, by_position, keys, values)
    )
    for head in range(heads):
        for first in range(0, frames, queries):
            last = min(first + queries, frames)
            needed = positions[head, frames - last : 2 * frames - 1 - first]
            scores = linear(by_content[head, first:last], keys[head])
            scores += _shifted(linear(by_position[head, first:last], needed))
            out[first:last, head] = linear(torch.softmax(scores, dim=-1), values[head])
    return out.view(frames, -1)


def _shifted(scores: Tensor) -> Tensor:
    """Scores by distance (..., Q, T + Q - 1) seen by key: (..., Q, T), a view.

    Row r of Q begins with the distance of the last of the Q queries to key 0, which is Q - 1 - r
    before its own.
    """
    *heads, queries, width = scores.shape
    strides = (*scores.stride()[:-2], width - 1, 1)
    return scores.as_strided((*heads, queries, width - queries + 1), strides, queries - 1)


def _known(encoder: nn.Module) -> bool:
    """Whether the pass above is this encoder's."""
    return (
        isinstance(encoder, ConformerEncoder)
        and not encoder.training
        and not is_fast(encoder)
        and encoder.normalize_before
        and not encoder.interctc_layer_idx
        and isinstance(encoder.embed, Conv2dSubsampling)
        and type(encoder.embed.pos_enc) is RelPositionalEncoding
        and all(_known_layer(layer) for layer in encoder.encoders)
    )


def _known_layer(layer: nn.Module) -> bool:
    attention, convolution = layer.self_attn, layer.conv_module
    return (
        type(layer) is EncoderLayer
        and layer.normalize_before
        and not layer.concat_after
        and type(layer.feed_forward) in (PositionwiseFeedForward, GoneBranch)
        and type(layer.feed_forward_macaron) in (PositionwiseFeedForward, type(None))
        and type(convolution) in (ConvolutionModule, GoneBranch)
        and (type(convolution) is GoneBranch or type(convolution.norm) is nn.BatchNorm1d)
        and (type(attention) is GoneBranch or _known_attention(attention))
    )


def _known_attention(attention: nn.Module) -> bool:
    return (
        type(attention) is RelPositionMultiHeadedAttention
        and not attention.use_flash_attn
        and not attention.zero_triu
        and isinstance(attention.q_norm, nn.Identity)
    )
