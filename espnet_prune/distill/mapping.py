"""Which student block learns from which teacher block.

A mapping takes the distances between teacher layers (rows) and student blocks (columns) and
returns one student column a teacher row. ``argmin`` and ``monotone`` are CoFi's versions 3 and 4
(arXiv 2204.00408, public code): the first takes the nearest block, the second goes from the top
down and keeps the order, among blocks that still have attention. ``fixed`` and ``roomy`` are ours.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from espnet_prune.config import check_choice

MAPPINGS = ("fixed", "argmin", "monotone", "roomy")


def default_teacher_layers(blocks: int) -> tuple[int, ...]:
    """A quarter, half, three quarters and the last of ``blocks`` (CoFi's code), from 0."""
    return tuple(sorted({max(0, round(blocks * quarter / 4) - 1) for quarter in (1, 2, 3, 4)}))


def fixed(teacher_layers: Sequence[int], student_blocks: Sequence[int]) -> list[int]:
    """Each teacher layer's own block, or the nearest kept one below it (above if there is none).

    Args:
        teacher_layers: indices of teacher blocks.
        student_blocks: original indices of the student's blocks, ascending.

    Returns:
        Columns of the student, one a teacher layer.
    """
    columns = []
    for layer in teacher_layers:
        below = [c for c, block in enumerate(student_blocks) if block <= layer]
        columns.append(below[-1] if below else 0)
    return columns


def argmin(distances: Tensor) -> list[int]:
    """The nearest block of each teacher layer; ``distances`` (teacher layers, blocks)."""
    return distances.argmin(dim=1).tolist()


def monotone(distances: Tensor) -> list[int]:
    """From the last teacher layer down, the nearest block strictly below the one before.

    No block is kept back for the layers still to come, so an early choice may leave them none;
    then they share the lowest block, which is ours.

    Args:
        distances: (teacher layers, blocks).
    """
    columns, limit = [0] * len(distances), distances.shape[1]
    for layer in range(len(distances) - 1, -1, -1):
        columns[layer] = int(distances[layer, : max(limit, 1)].argmin())
        limit = columns[layer]
    return columns


def roomy(distances: Tensor) -> list[int]:
    """The same, but enough blocks are left for the layers still to come (ours).

    With fewer blocks than teacher layers, the lowest layers share the lowest block.

    Args:
        distances: (teacher layers, blocks).
    """
    layers, blocks = distances.shape
    columns = [0] * layers
    limit = blocks
    for layer in range(layers - 1, -1, -1):
        lowest = min(layer, max(limit - 1, 0))
        columns[layer] = lowest + int(distances[layer, lowest : max(limit, lowest + 1)].argmin())
        limit = columns[layer]
    return columns


def choose(
    kind: str,
    distances: Tensor,
    teacher_layers: Sequence[int],
    student_blocks: Sequence[int],
    eligible: Sequence[int] | None = None,
) -> list[int]:
    """The student column of each teacher layer.

    Args:
        kind: one of ``MAPPINGS``.
        distances: (teacher layers, student blocks), no gradient.
        teacher_layers: indices of teacher blocks.
        student_blocks: original indices of the student's blocks.
        eligible: original indices of blocks that may be chosen by ``monotone`` and ``roomy``; all
            by default.
    """
    check_choice("distillation: mapping", kind, MAPPINGS)
    if kind == "fixed":
        return fixed(teacher_layers, student_blocks)
    if kind == "argmin":
        return argmin(distances)
    allowed = [c for c, block in enumerate(student_blocks) if eligible is None or block in eligible]
    if not allowed:
        allowed = list(range(len(student_blocks)))
    columns = torch.tensor(allowed)
    chosen = (monotone if kind == "monotone" else roomy)(distances[:, columns])
    return [allowed[column] for column in chosen]
