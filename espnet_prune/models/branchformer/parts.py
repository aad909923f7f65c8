"""What both kinds of Branchformer share: attention and gating MLP side by side, and their merge."""

from collections.abc import Sequence

from torch import nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.models.espnet.options import attention_options, gating_options
from espnet_prune.models.espnet.parts import (
    GATING_MLPS,
    Part,
    Place,
    attention_part,
    gating_part,
    is_there,
    merged_part,
    merging_terms,
)

FEED_FORWARD_COLUMN, CHANNELS_COLUMN = "none there", "yes, the gating MLP's, and those merged"


def side_by_side(
    layer: nn.Module, index: int, positions: int, block: str | None, merges_channels: bool
) -> tuple[list[Part], list[CostTerm]]:
    """Both branches of a block, or the one that it has, and what their merge costs.

    Args:
        layer: the block.
        index: its index.
        positions: frames of the reference utterance in the encoder.
        block: name of its site; None where it can't go.
        merges_channels: whether both branches' channels stand side by side, so that each can go.
    """
    parts, others = [], []
    for branch, attribute, norm in (
        ("attention", "attn", "norm_mha"),
        ("gating", "cgmlp", "norm_mlp"),
    ):
        module = getattr(layer, attribute)
        if not is_there(module):
            continue
        place = Place(layer, index, attribute, norm, branch, positions, block)
        if branch == "attention":
            part, producer = attention_part(place), module.linear_out
        else:
            place.check(GATING_MLPS)
            part, producer = gating_part(place), module.channel_proj2
        if merges_channels:
            part = merged_part(part, place, producer, is_second=branch == "gating")
            others += merging_terms(part, positions)
        else:
            part.branch.adds_to_stream = False  # a projection stands between
        parts.append(part)
    return parts, others


def branch_options(encoder: nn.Module, layers: Sequence[nn.Module]) -> dict:
    """Options of attention and of the gating MLP, as far as the first block has them."""
    layer, options = layers[0], {}
    if layer.attn is not None:
        options.update(attention_options(encoder, layer.attn, "attention_layer_type"))
    if layer.cgmlp is not None:
        gate = layer.cgmlp.csgu
        options.update(gating_options(gate), cgmlp_conv_kernel=gate.conv.kernel_size[0])
    return options
