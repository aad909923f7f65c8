"""The Transformer encoder of ESPnet."""

from torch import nn

from espnet_prune.models.espnet.encoder_family import EspnetEncoder, front_ends
from espnet_prune.models.espnet.front_end import IMAGES
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.espnet.options import (
    attention_options,
    feed_forward_options,
    input_options,
    interctc_options,
)
from espnet_prune.models.espnet.parts import (
    attention_part,
    feed_forward_part,
)
from espnet_prune.models.family import Support


class Transformer(EspnetEncoder):
    """ESPnet's TransformerEncoder."""

    name = "transformer"
    title = "ESPnet's TransformerEncoder"
    classes = ("TransformerEncoder",)
    choices = ("pruned_transformer",)
    stock_choice = "transformer"
    known = {
        "input_layer": (
            *IMAGES,
            *("conv1d2", "linear", "wav2vec", None),
        ),
        "pos_enc_layer_type": ("abs_pos",),
        "positionwise_layer_type": ("linear", "conv1d", "conv1d-linear"),
        "concat_after": (False,),
    }
    parts = ("self_attn", "feed_forward")
    branches = {
        "attention": ("self_attn", "norm1", attention_part),
        "feed_forward": ("feed_forward", "norm2", feed_forward_part),
    }
    support = Support(
        "ESPnet `transformer`",
        (
            "yes",
            "yes",
            "none there",
            front_ends(known),
            "attention, feed-forward",
            "yes",
        ),
    )

    def stock_class(self) -> type:
        with importing_espnet():
            from espnet2.asr.encoder.transformer_encoder import TransformerEncoder
        return TransformerEncoder

    def options(self, encoder: nn.Module) -> dict:
        layer = encoder.encoders[0]
        attention = attention_options(encoder, layer.self_attn, "kind")
        for key in ("kind", "rel_pos_type"):  # which leave no choice
            del attention[key]
        return {
            **input_options(encoder),
            **attention,
            **feed_forward_options(layer.feed_forward),
            **interctc_options(encoder),
            "num_blocks": len(encoder.encoders),
            "dropout_rate": float(layer.dropout.p),
            "layer_drop_rate": float(encoder.encoders.layer_drop_rate),
            "normalize_before": layer.normalize_before,
        }


FAMILY = Transformer()
