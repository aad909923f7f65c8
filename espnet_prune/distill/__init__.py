"""Distillation: mappings between layers and losses on hidden states and outputs."""

from espnet_prune.distill.balance import ClassBalance
from espnet_prune.distill.layerwise import DistillConfig, LayerwiseDistillation
from espnet_prune.distill.losses import kl_loss, layer_loss, length_mask, near_tokens
from espnet_prune.distill.mapping import MAPPINGS, choose, default_teacher_layers

__all__ = [
    "MAPPINGS",
    "ClassBalance",
    "DistillConfig",
    "LayerwiseDistillation",
    "choose",
    "default_teacher_layers",
    "kl_loss",
    "layer_loss",
    "length_mask",
    "near_tokens",
]
