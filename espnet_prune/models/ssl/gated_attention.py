"""Heads of WavLM's attention, whose bias of positions is gated and made by the first layer for all.

The first layer's table has a column for each of the teacher's heads, and every layer adds to a
head's scores the column of that head's number, times a gate computed from the head's slice of what
the layer reads. transformers finds column and slice by counting heads, and hands the weights to a
fused function. So where masks act or heads are gone, this attention stands in, which knows its
heads' numbers and calls its layers. The table always stays whole; a layer of gates is shared by the
heads.
"""

import functools
import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.models.espnet.parts import Part, Place
from espnet_prune.models.huggingface.blocks import GoneAttention, attention_part
from espnet_prune.sites.attention import TRANSFORMERS, HeadSite

TABLE, SCALES = "rel_attn_embed", "gru_rel_pos_const"
NUMBERS = "head_numbers"  # the teacher's of the heads that are left


class _Numbered:
    """Mixin: attention that knows the teacher's numbers of its heads."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        **unused,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As transformers' own, but that weights come by head and not averaged.

        Args:
            hidden_states: (B, T, D).
            attention_mask: (B, T), True on real frames.
            position_bias: (B x all heads, T, T), of the first layer; None in the first.
            **unused: the layer's index.

        Returns:
            (B, T, D), weights (B, heads, T, T), the bias.
        """
        batch, frames, size = hidden_states.shape
        if position_bias is None:
            position_bias = bias_of(self, batch, frames)
        everyone, kept = size // self.head_dim, self.head_numbers
        bias = position_bias.view(batch, everyone, frames, frames)[:, kept]
        slices = hidden_states.view(batch, frames, everyone, self.head_dim)[:, :, kept]
        bias = self._gate(slices.transpose(1, 2)) * bias
        if attention_mask is not None:
            bias = bias.masked_fill(attention_mask[:, None, None].ne(1), -math.inf)
        queries, keys, values = (
            layer(hidden_states.transpose(0, 1))
            .view(frames, batch * len(kept), self.head_dim)
            .transpose(0, 1)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries = queries * math.sqrt(1.0 / self.head_dim)
        scores = torch.baddbmm(bias.flatten(0, 1), queries, keys.transpose(1, 2))
        weights = nn.functional.dropout(scores.softmax(dim=-1), self.dropout, self.training)
        read = (weights @ values).transpose(0, 1).reshape(frames, batch, -1)
        weights = weights.view(batch, len(kept), frames, frames)
        return self.out_proj(read).transpose(0, 1), weights, position_bias

    def _gate(self, slices: Tensor) -> Tensor:
        """(B, heads, T, d_k) -> (B, heads, T, 1)."""
        sums = self.gru_rel_pos_linear(slices).unflatten(-1, (2, -1)).sum(-1)
        first, second = torch.sigmoid(sums).chunk(2, dim=-1)
        return first * (second * self.gru_rel_pos_const - 1.0) + 2.0


class GoneGatedAttention(GoneAttention):
    """Stands where such attention was: adds nothing, but hands the bias of positions on."""

    def forward(
        self, hidden_states: Tensor, position_bias: Tensor | None = None, **unused
    ) -> tuple[Tensor, None, Tensor]:
        """(B, T, D) -> zeros (B, T, D), no weights, and the bias (B x all heads, T, T)."""
        if position_bias is None:
            position_bias = bias_of(self, *hidden_states.shape[:2])
        return torch.zeros_like(hidden_states), None, position_bias


def bias_of(attention: nn.Module, batch: int, frames: int) -> Tensor:
    """The first layer's bias of positions, (batch x all heads, frames, frames)."""
    return attention.compute_bias(frames, frames).repeat(batch, 1, 1)


@functools.cache
def _kind(mixin: type, stock: type) -> type:
    return type(f"{mixin.__name__.strip('_')}{stock.__name__}", (mixin, stock), {})


def number_heads(attention: nn.Module, kept: Tensor | None = None) -> None:
    """Lets attention know its heads' numbers, in place; its outputs stay, bit for bit.

    Args:
        attention: transformers' own, or one that was numbered before.
        kept: the numbers, ascending; by default all, or those that it knows.
    """
    if isinstance(attention, _Numbered):
        if kept is None:
            return
    else:
        attention.__class__ = _kind(_Numbered, type(attention))
    kept = torch.arange(attention.num_heads) if kept is None else kept
    device = attention.gru_rel_pos_const.device
    attention.register_buffer(NUMBERS, kept.to(device), persistent=False)


class GatedHeadSite(HeadSite):
    """Heads of one such attention module."""

    def attach(self) -> None:
        super().attach()
        number_heads(self.attention)

    def detach(self) -> None:
        super().detach()
        if isinstance(self.attention, _Numbered):
            delattr(self.attention, NUMBERS)
            self.attention.__class__ = type(self.attention).__mro__[2]

    def made_by(self) -> list[Tensor]:
        return [*super().made_by(), getattr(self.attention, SCALES).detach()[0]]

    def cut(self, kept: Tensor, values: Tensor) -> None:
        super().cut(kept, values)
        scales = getattr(self.attention, SCALES).detach()
        setattr(self.attention, SCALES, nn.Parameter(scales[:, kept].clone()))
        if len(kept) < self.units:
            number_heads(self.attention, kept)


def gated_attention_part(place: Place) -> Part:
    """Self-attention with a gated bias: its heads."""
    attention = place.module
    part = attention_part(place, TRANSFORMERS, site=GatedHeadSite, gone=_gone(attention))
    own, *others = part.terms
    gates = attention.gru_rel_pos_linear.weight.numel() * place.positions
    table = getattr(attention, TABLE, None)
    stays = [] if table is None else [CostTerm(table.weight.numel(), 0, ())]
    return replace(part, terms=[replace(own, macs=own.macs + gates), *others, *stays])


def _gone(attention: nn.Module) -> nn.Module:
    """What stands for it; of the first layer it keeps the table of positions."""
    kind = _kind(GoneGatedAttention, type(attention))
    gone = kind.__new__(kind)
    nn.Module.__init__(gone)
    for name in (TABLE, "num_buckets", "max_distance"):
        if hasattr(attention, name):
            setattr(gone, name, getattr(attention, name))
    return gone
