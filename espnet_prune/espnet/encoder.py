"""ESPnet's ConformerEncoder with a plan: built dense, then cut to shape."""

import contextlib
import io
from typing import Any

from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.surgery.cut import cut_to_plan
from espnet_prune.surgery.plan import Plan

with contextlib.redirect_stderr(io.StringIO()):  # ESPnet's regret that flash_attn isn't installed
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder


class PrunedConformerEncoder(ConformerEncoder):
    """A ConformerEncoder of the shape that a plan gives.

    Args:
        input_size: width of the features.
        pruned_arch: the plan, as ``Plan.to_json`` writes it.
        **conf: the dense encoder's options.

    Raises:
        ModelError: the plan isn't one, or is of another dense encoder.
    """

    def __init__(self, input_size: int, pruned_arch: dict[str, Any], **conf: Any) -> None:
        super().__init__(input_size, **conf)
        cut_to_plan(self, Plan.from_json(pruned_arch, "encoder_conf.pruned_arch"))


def describe_encoder(encoder: nn.Module) -> dict:
    """The options that build an encoder of this one's dense shape, read off the encoder.

    Raises:
        ModelError: it was cut and no longer shows them; set ``espnet_prune_config`` before.
    """
    if getattr(encoder, "espnet_prune_plan", None) is not None:
        raise ModelError(
            "a cut encoder doesn't show its dense shape; set encoder.espnet_prune_config to the "
            "options of the dense ConformerEncoder, input_size included, before inject"
        )
    layer = encoder.encoders[0]
    bins = encoder.embed.out.in_features // encoder.embed.conv[2].out_channels
    return {
        "input_size": 80 if ((80 - 1) // 2 - 1) // 2 == bins else bins * 4 + 3,
        "output_size": encoder.output_size(),
        "attention_heads": layer.self_attn.h,
        "linear_units": layer.feed_forward.w_1.out_features,
        "num_blocks": len(encoder.encoders),
        "macaron_style": layer.feed_forward_macaron is not None,
        "rel_pos_type": "latest",
        "cnn_module_kernel": layer.conv_module.depthwise_conv.kernel_size[0],
        "activation_type": _activation_name(layer.conv_module.activation),
        "zero_triu": layer.self_attn.zero_triu,
        "use_sdpa": layer.self_attn.use_sdpa,
    }


def _activation_name(activation: nn.Module) -> str:
    name = type(activation).__name__.lower()
    return "swish" if name == "silu" else name


def build_encoder(config: dict) -> ConformerEncoder:
    """A ConformerEncoder from its options, cut where they hold a plan."""
    kind = PrunedConformerEncoder if "pruned_arch" in config else ConformerEncoder
    encoder = kind(**config)
    encoder.espnet_prune_config = {k: v for k, v in config.items() if k != "pruned_arch"}
    return encoder
