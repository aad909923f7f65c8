"""The E-Branchformer of ESPnet."""

from torch import nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.models.branchformer.parts import CHANNELS_COLUMN, branch_options, side_by_side
from espnet_prune.models.espnet.encoder_family import EspnetEncoder, front_ends
from espnet_prune.models.espnet.front_end import IMAGES
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.espnet.options import (
    activation_name,
    feed_forward_options,
    input_options,
    interctc_options,
)
from espnet_prune.models.espnet.parts import Part, Place, feed_forward_part, is_there
from espnet_prune.models.family import Support

FEED_FORWARDS = {
    "feed_forward": ("feed_forward", "norm_ff"),
    "macaron": ("feed_forward_macaron", "norm_ff_macaron"),
}


class EBranchformer(EspnetEncoder):
    """ESPnet's EBranchformerEncoder."""

    name = "e_branchformer"
    title = "ESPnet's EBranchformerEncoder"
    classes = ("EBranchformerEncoder",)
    choices = ("pruned_e_branchformer",)
    stock_choice = "e_branchformer"
    known = {
        "input_layer": (
            *IMAGES,
            *("conv1d1", "conv1d2", "conv1d3", "linear", None),
        ),
        "attention_layer_type": ("rel_selfattn", "selfattn", "legacy_rel_selfattn"),
        "pos_enc_layer_type": ("rel_pos", "abs_pos", "scaled_abs_pos", "legacy_rel_pos"),
        "positionwise_layer_type": ("linear",),
        "gradient_checkpoint_layers": ([],),
    }
    parts = ("attn", "cgmlp", "feed_forward_macaron", "feed_forward")
    norms_between = False
    support = Support(
        "ESPnet `e_branchformer`",
        (
            "yes",
            "yes, both feed-forwards",
            f"{CHANNELS_COLUMN} and convolved",
            front_ends(known),
            "macaron, attention, gating MLP, feed-forward",
            "yes",
        ),
    )

    def stock_class(self) -> type:
        with importing_espnet():
            from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder
        return EBranchformerEncoder

    def block_parts(
        self, layer: nn.Module, index: int, positions: int, block: str | None
    ) -> tuple[list[Part], list[CostTerm]]:
        parts, others = side_by_side(layer, index, positions, block, merges_channels=True)
        for branch, (attribute, norm) in FEED_FORWARDS.items():
            if is_there(getattr(layer, attribute)):
                place = Place(layer, index, attribute, norm, branch, positions, block)
                parts.append(feed_forward_part(place))
        return parts, others

    def options(self, encoder: nn.Module) -> dict:
        layer = encoder.encoders[0]
        options = {
            **input_options(encoder),
            **branch_options(encoder, encoder.encoders),
            **interctc_options(encoder),
            "num_blocks": len(encoder.encoders),
            "dropout_rate": float(layer.dropout.p),
            "layer_drop_rate": float(encoder.encoders.layer_drop_rate),
            "use_ffn": layer.feed_forward is not None,
            "macaron_ffn": layer.feed_forward_macaron is not None,
            "merge_conv_kernel": layer.depthwise_conv_fusion.kernel_size[0],
        }
        if layer.feed_forward is not None:
            options.update(feed_forward_options(layer.feed_forward))
            options["ffn_activation_type"] = activation_name(layer.feed_forward.activation)
        return options


FAMILY = EBranchformer()
