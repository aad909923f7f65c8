"""Conformer blocks of transformers: Wav2Vec2-Conformer's, Wav2Vec2-BERT's and their attention.

Positions are relative, with a layer and two biases by head; or a table of distances, shared by the
heads; or rotary, turned on what attention reads, all heads of it; or none.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from espnet_prune.models.espnet.parts import Part, Place
from espnet_prune.models.huggingface.blocks import (
    BlockKind,
    attention_part,
    convolution_part,
    feed_forward_part,
)
from espnet_prune.sites.attention import AttentionNames

FEED_FORWARD = ("intermediate_dense", "output_dense")
# The number of heads is read for rotary positions alone, which are the dense model's.
PLAIN = AttentionNames(None, "head_size", "linear_out", ("linear_q", "linear_k", "linear_v"))
RELATIVE = replace(
    PLAIN, inputs=(*PLAIN.inputs, "linear_pos"), per_head=("pos_bias_u", "pos_bias_v")
)


def conformer_attention_part(place: Place) -> Part:
    """Self-attention of any kind of positions: its heads."""
    frames = place.positions
    if hasattr(place.module, "linear_pos"):
        distances = 2 * frames - 1
        return attention_part(place, RELATIVE, table=distances, looked=distances)
    looked = frames if hasattr(place.module, "distance_embedding") else 0
    return attention_part(place, PLAIN, looked=looked)


def half_feed_forward(first: str, second: str) -> Callable[[Place], Part]:
    """What makes the parts of a Conformer's feed-forwards, half of which is added to the stream."""
    return partial(feed_forward_part, first=first, second=second, share=0.5)


def _conformer(norm: str) -> BlockKind:
    feed_forward = half_feed_forward(*FEED_FORWARD)
    return BlockKind(
        {
            "attention": ("self_attn", "self_attn_layer_norm", conformer_attention_part),
            "convolution": ("conv_module", None, partial(convolution_part, norm=norm)),
            "feed_forward": ("ffn2", "ffn2_layer_norm", feed_forward),
            "macaron": ("ffn1", "ffn1_layer_norm", feed_forward),
        },
        {"self_attn": RELATIVE.matrices, "ffn1": FEED_FORWARD, "ffn2": FEED_FORWARD},
    )


CONFORMER = _conformer("batch_norm")
BERT = _conformer("depthwise_layer_norm")
