"""Distillation losses: layerwise on hidden states, Kullback-Leibler on outputs.

All are means over valid frames or tokens, so that padding and batch size don't matter. Those of
layers are shares of what the teacher's layer varies: one weight suits models of any scale.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LAYER_LOSSES = ("mse", "l1_cosine")
SMALLEST = 1e-12  # of a deviation: a layer that never varies has none


def layer_loss(kind: str, student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Distance between hidden states, ().

    Args:
        kind: ``mse``: the mean squared difference (CoFi) over the teacher's variance; or
            ``l1_cosine``: the mean absolute difference over the teacher's mean absolute deviation,
            plus cosine distance (after DPHuBERT, arXiv 2305.17651). To divide is ours: a student
            that gives the teacher's mean at every frame has a distance of 1.
        student: (B, T, D), already through the linear map.
        teacher: (B, T, D).
        valid: (B, T), True on real frames.
    """
    student, teacher = _precise(student[valid]), _precise(teacher[valid])
    deviation = teacher - teacher.mean(dim=0)
    if kind == "mse":
        return F.mse_loss(student, teacher) / deviation.square().mean().clamp(min=SMALLEST)
    absolute = F.l1_loss(student, teacher) / deviation.abs().mean().clamp(min=SMALLEST)
    return absolute + 1 - F.cosine_similarity(student, teacher, dim=-1).mean()


def kl_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    valid: Tensor,
    temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """KL(teacher || student) at a temperature, times its square (Hinton et al. 2015), ().

    Args:
        student_logits: (B, L, V).
        teacher_logits: (B, L, V).
        valid: (B, L), True on real frames or tokens.
        temperature: softens both distributions.
        weights: (V,), multiply the teacher's softened distribution, which is then normalised again.
    """
    student = F.log_softmax(_precise(student_logits[valid]) / temperature, dim=-1)
    teacher = _precise(teacher_logits[valid]) / temperature
    if weights is not None:
        teacher = teacher + weights.log()
    teacher = F.log_softmax(teacher, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def near_tokens(teacher_logits: Tensor, valid: Tensor, context: int) -> Tensor:
    """Frames (B, L) at which CTC's likeliest token isn't the blank, or that are near to one.

    Args:
        teacher_logits: (B, L, V), with the blank first.
        valid: (B, L), True on real frames.
        context: number of frames on both sides that are near.
    """
    spoken = (teacher_logits.argmax(dim=-1) != 0) & valid
    near = F.max_pool1d(spoken.float(), 2 * context + 1, stride=1, padding=context)
    return (near > 0) & valid


def _precise(values: Tensor) -> Tensor:
    """Float32 where mixed precision gave less; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def length_mask(lengths: Tensor, longest: int) -> Tensor:
    """(B,) -> (B, longest), True within each length."""
    return torch.arange(longest, device=lengths.device)[None, :] < lengths[:, None]
