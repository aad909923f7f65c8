"""The contextual-block Conformer of ESPnet, for streaming."""

from torch import nn

from espnet_prune.models.contextual.blocks import ContextualEncoder
from espnet_prune.models.espnet.encoder_family import front_ends
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.espnet.options import activation_name
from espnet_prune.models.espnet.parts import attention_part, convolution_part, feed_forward_part
from espnet_prune.models.family import Support


class ContextualConformer(ContextualEncoder):
    """ESPnet's ContextualBlockConformerEncoder."""

    name = "contextual_conformer"
    title = "ESPnet's ContextualBlockConformerEncoder"
    classes = ("ContextualBlockConformerEncoder",)
    choices = ("pruned_contextual_block_conformer",)
    stock_choice = "contextual_block_conformer"
    known = {
        "input_layer": ("conv2d", "conv2d6", "conv2d8", "linear", None),
        "positionwise_layer_type": ("linear", "conv1d", "conv1d-linear"),
        "concat_after": (False,),
        "init_average": (True,),
    }
    parts = ("self_attn", "feed_forward_macaron", "feed_forward")
    branches = {
        "attention": ("self_attn", "norm1", attention_part),
        "convolution": ("conv_module", "norm_conv", convolution_part),
        "feed_forward": ("feed_forward", "norm2", feed_forward_part),
        "macaron": ("feed_forward_macaron", "norm_ff_macaron", feed_forward_part),
    }
    support = Support(
        "ESPnet `contextual_block_conformer` (streaming)",
        (
            "yes",
            "yes, both feed-forwards",
            "yes",
            front_ends(known),
            "macaron, attention, convolution, feed-forward",
            "yes, but for the last",
        ),
    )

    def stock_class(self) -> type:
        with importing_espnet():
            from espnet2.asr.encoder.contextual_block_conformer_encoder import (
                ContextualBlockConformerEncoder,
            )
        return ContextualBlockConformerEncoder

    def more_options(self, layer: nn.Module) -> dict:
        convolution = layer.conv_module
        options = {
            "macaron_style": layer.feed_forward_macaron is not None,
            "use_cnn_module": convolution is not None,
        }
        if convolution is not None:
            options["cnn_module_kernel"] = convolution.depthwise_conv.kernel_size[0]
            options["activation_type"] = activation_name(convolution.activation)
        return options


FAMILY = ContextualConformer()
