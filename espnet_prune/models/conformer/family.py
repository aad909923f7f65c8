"""The Conformer of ESPnet."""

from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.encoder_family import EspnetEncoder, front_ends
from espnet_prune.models.espnet.front_end import IMAGES
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.espnet.options import (
    activation_name,
    attention_options,
    feed_forward_options,
    input_options,
    interctc_options,
)
from espnet_prune.models.espnet.parts import (
    attention_part,
    convolution_part,
    feed_forward_part,
)
from espnet_prune.models.family import Support
from espnet_prune.sites.linear_attention import Attention

BY_SOFTMAX = "RelPositionMultiHeadedAttention"  # the attention that linear attention stands for


class Conformer(EspnetEncoder):
    """ESPnet's ConformerEncoder."""

    name = "conformer"
    title = "ESPnet's ConformerEncoder"
    classes = ("ConformerEncoder",)
    choices = ("pruned_conformer",)
    stock_choice = "conformer"
    known = {
        "input_layer": (*IMAGES, "linear", None),
        "selfattention_layer_type": ("rel_selfattn", "selfattn", "legacy_rel_selfattn"),
        "pos_enc_layer_type": ("rel_pos", "abs_pos", "scaled_abs_pos", "legacy_rel_pos"),
        "positionwise_layer_type": ("linear", "conv1d", "conv1d-linear"),
        "concat_after": (False,),
        "ctc_trim": (False,),
    }
    parts = ("self_attn", "feed_forward_macaron", "feed_forward")
    branches = {
        "attention": ("self_attn", "norm_mha", attention_part),
        "convolution": ("conv_module", "norm_conv", convolution_part),
        "feed_forward": ("feed_forward", "norm_ff", feed_forward_part),
        "macaron": ("feed_forward_macaron", "norm_ff_macaron", feed_forward_part),
    }
    support = Support(
        "ESPnet `conformer` (relative positions of either type, absolute ones)",
        (
            "yes",
            "yes, both feed-forwards",
            "yes",
            front_ends(known),
            "macaron, attention, convolution, feed-forward",
            "yes",
        ),
    )

    def stock_class(self) -> type:
        with importing_espnet():
            from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
        return ConformerEncoder

    def encoder_attentions(self, encoder: nn.Module) -> list[Attention]:
        self.check(encoder)
        found = []
        for index, layer in enumerate(encoder.encoders):
            kind = type(layer.self_attn).__name__
            if kind != BY_SOFTMAX:
                raise ModelError(
                    f"block {index}: self_attn is {kind}, expected {BY_SOFTMAX} of a model that "
                    "wasn't cut: `rel_pos_type: latest`, `selfattention_layer_type: rel_selfattn`"
                )
            found.append((f"block.{index}.softmax", index, layer))
        return found

    def options(self, encoder: nn.Module) -> dict:
        layer = encoder.encoders[0]
        convolution = layer.conv_module
        source = layer.feed_forward if convolution is None else convolution
        options = {
            **input_options(encoder),
            **attention_options(encoder, layer.self_attn, "selfattention_layer_type"),
            **feed_forward_options(layer.feed_forward),
            **interctc_options(encoder),
            "num_blocks": len(encoder.encoders),
            "dropout_rate": float(layer.dropout.p),
            "stochastic_depth_rate": [float(b.stochastic_depth_rate) for b in encoder.encoders],
            "layer_drop_rate": float(encoder.encoders.layer_drop_rate),
            "macaron_style": layer.feed_forward_macaron is not None,
            "use_cnn_module": convolution is not None,
            "normalize_before": layer.normalize_before,
        }
        if hasattr(source, "activation"):  # a feed-forward of convolutions has ReLU
            options["activation_type"] = activation_name(source.activation)
        return {**options, **self.convolution_options(convolution)}

    def convolution_options(self, module: nn.Module | None) -> dict:
        """Those of the convolution module."""
        if module is None:
            return {}
        return {"cnn_module_kernel": module.depthwise_conv.kernel_size[0]}

    def speed_up(self, model: nn.Module, search=None) -> None:
        from espnet_prune.models.conformer.fast_encoder import speed_up

        speed_up(model.encoder)


FAMILY = Conformer()
