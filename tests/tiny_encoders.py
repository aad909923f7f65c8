"""Tiny encoders of ESPnet by the name of their family."""

import torch
from tiny_models import randomise

SIZES = {
    "output_size": 16,
    "attention_heads": 4,
    "num_blocks": 2,
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
}
SEGMENTS = {"block_size": 8, "hop_size": 3, "look_ahead": 2}
GATING = {"cgmlp_linear_units": 24}
ENCODERS = {
    "conformer": {**SIZES, "linear_units": 24, "macaron_style": True, "cnn_module_kernel": 7},
    "transformer": {**SIZES, "linear_units": 24},
    "branchformer": {**SIZES, **GATING, "cgmlp_conv_kernel": 7},
    "e_branchformer": {
        **SIZES,
        **GATING,
        "cgmlp_conv_kernel": 7,
        "linear_units": 24,
        "use_ffn": True,
        "macaron_ffn": True,
    },
    "contextual_conformer": {
        **SIZES,
        **SEGMENTS,
        "linear_units": 24,
        "macaron_style": True,
        "cnn_module_kernel": 7,
    },
    "contextual_transformer": {**SIZES, **SEGMENTS, "linear_units": 24},
    "multiconvformer": {
        **SIZES,
        **GATING,
        "linear_units": 24,
        "macaron_style": True,
        "rel_pos_type": "latest",
        "multicgmlp_kernel_sizes": "3,5",
    },
}


def tiny_encoder(family: str, **options) -> torch.nn.Module:
    """One whose norms and biases are not what they are at the start."""
    from espnet_prune.models import families

    (record,) = [each for each in families() if each.name == family]
    torch.manual_seed(0)
    return randomise(record.stock_class()(80, **{**ENCODERS[family], **options})).eval()
