"""The contextual-block Transformer of ESPnet, for streaming."""

from torch import nn

from espnet_prune.models.contextual.blocks import ContextualEncoder
from espnet_prune.models.contextual_conformer import ContextualConformer
from espnet_prune.models.espnet.encoder_family import front_ends
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.espnet.parts import attention_part, feed_forward_part
from espnet_prune.models.family import Support


class ContextualTransformer(ContextualEncoder):
    """ESPnet's ContextualBlockTransformerEncoder."""

    name = "contextual_transformer"
    title = "ESPnet's ContextualBlockTransformerEncoder"
    classes = ("ContextualBlockTransformerEncoder",)
    choices = ("pruned_contextual_block_transformer",)
    stock_choice = "contextual_block_transformer"
    known = ContextualConformer.known
    parts = ("self_attn", "feed_forward")
    branches = {
        "attention": ("self_attn", "norm1", attention_part),
        "feed_forward": ("feed_forward", "norm2", feed_forward_part),
    }
    support = Support(
        "ESPnet `contextual_block_transformer` (streaming)",
        (
            "yes",
            "yes",
            "none there",
            front_ends(known),
            "attention, feed-forward",
            "yes, but for the last",
        ),
    )

    def stock_class(self) -> type:
        with importing_espnet():
            from espnet2.asr.encoder.contextual_block_transformer_encoder import (
                ContextualBlockTransformerEncoder,
            )
        return ContextualBlockTransformerEncoder

    def more_options(self, layer: nn.Module) -> dict:
        return {}


FAMILY = ContextualTransformer()
