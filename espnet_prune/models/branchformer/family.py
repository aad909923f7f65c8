"""The Branchformer of ESPnet."""

from torch import nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.models.branchformer.parts import (
    CHANNELS_COLUMN,
    FEED_FORWARD_COLUMN,
    branch_options,
    side_by_side,
)
from espnet_prune.models.espnet.encoder_family import EspnetEncoder, front_ends
from espnet_prune.models.espnet.front_end import IMAGES
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.espnet.options import input_options
from espnet_prune.models.espnet.parts import Part
from espnet_prune.models.family import Support


class Branchformer(EspnetEncoder):
    """ESPnet's BranchformerEncoder."""

    name = "branchformer"
    title = "ESPnet's BranchformerEncoder"
    classes = ("BranchformerEncoder",)
    choices = ("pruned_branchformer",)
    stock_choice = "branchformer"
    known = {
        "input_layer": (*IMAGES, "linear", None),
        "attention_layer_type": ("rel_selfattn", "selfattn", "legacy_rel_selfattn"),
        "pos_enc_layer_type": ("rel_pos", "abs_pos", "scaled_abs_pos", "legacy_rel_pos"),
    }
    parts = ("attn", "cgmlp")
    support = Support(
        "ESPnet `branchformer`",
        (
            "yes",
            FEED_FORWARD_COLUMN,
            f"{CHANNELS_COLUMN} by `concat`",
            front_ends(known),
            "attention, gating MLP",
            "yes",
        ),
    )

    def stock_class(self) -> type:
        with importing_espnet():
            from espnet2.asr.encoder.branchformer_encoder import BranchformerEncoder
        return BranchformerEncoder

    def block_parts(
        self, layer: nn.Module, index: int, positions: int, block: str | None
    ) -> tuple[list[Part], list[CostTerm]]:
        concatenates = layer.use_two_branches and layer.merge_method == "concat"
        parts, others = side_by_side(layer, index, positions, block, concatenates)
        if not concatenates:
            always = () if block is None else (block,)
            others.append(CostTerm(0, _merging_macs(layer, positions), always))
        return parts, others

    def options(self, encoder: nn.Module) -> dict:
        layers = encoder.encoders
        layer = layers[0]
        return {
            **input_options(encoder),
            **branch_options(encoder, layers),
            "use_attn": layer.attn is not None,
            "use_cgmlp": layer.cgmlp is not None,
            "merge_method": layer.merge_method,
            "cgmlp_weight": [float(block.cgmlp_weight) for block in layers],
            "attn_branch_drop_rate": [float(block.attn_branch_drop_rate) for block in layers],
            "stochastic_depth_rate": [float(block.stochastic_depth_rate) for block in layers],
            "num_blocks": len(layers),
            "dropout_rate": float(layer.dropout.p),
        }


def _merging_macs(layer: nn.Module, positions: int) -> int:
    """MACs of an average of both branches: the projection, and how the average is learned."""
    macs = sum(
        m.weight.numel() * positions for m in layer.merge_proj.modules() if isinstance(m, nn.Linear)
    )
    if layer.use_two_branches and layer.merge_method == "learned_ave":
        scores, pooled, weighed = layer.size * positions, positions * layer.size, layer.size
        macs += 2 * (scores + pooled + weighed)
    return macs


FAMILY = Branchformer()
