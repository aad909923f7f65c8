"""Blocks of Parakeet: a FastConformer's, whose attention asks the configuration for its heads."""

from functools import partial

from espnet_prune.models.espnet.parts import Part, Place
from espnet_prune.models.huggingface.blocks import (
    BlockKind,
    ConfiguredHeadSite,
    attention_part,
    convolution_part,
    refuse_shared_keys,
)
from espnet_prune.models.huggingface.conformer import half_feed_forward
from espnet_prune.sites.attention import AttentionNames

ATTENTION = AttentionNames(
    None,
    "head_dim",
    "o_proj",
    ("q_proj", "k_proj", "v_proj", "relative_k_proj"),
    ("bias_u", "bias_v"),
)
FEED_FORWARD = ("linear1", "linear2")


def parakeet_attention_part(place: Place) -> Part:
    """Self-attention with relative positions: its heads.

    Raises:
        ModelError: several heads share their keys and values.
    """
    refuse_shared_keys(place.module, place.name)
    distances = 2 * place.positions - 1
    return attention_part(
        place, ATTENTION, table=distances, looked=distances, site=ConfiguredHeadSite
    )


_feed_forward = half_feed_forward(*FEED_FORWARD)
FAST_CONFORMER = BlockKind(
    {
        "attention": ("self_attn", "norm_self_att", parakeet_attention_part),
        "convolution": ("conv", "norm_conv", partial(convolution_part, norm="norm")),
        "feed_forward": ("feed_forward2", "norm_feed_forward2", _feed_forward),
        "macaron": ("feed_forward1", "norm_feed_forward1", _feed_forward),
    },
    {
        "self_attn": ATTENTION.matrices,
        "feed_forward1": FEED_FORWARD,
        "feed_forward2": FEED_FORWARD,
    },
)
