"""A model's weights rounded to few bits: the nearest ones, or by what their layers hear.

GPTQ (Frantar et al. 2022, arXiv 2210.17323), the optimal brain surgeon for rounding: with H = X^T X
of what a layer hears, its columns are rounded one after the other, and those that are left make
good by H^-1 what each one lost; the scales of a stretch of a row are found when its turn comes.
Ours: scales are the best of some by what the columns' errors cost; the bias takes the mean error;
convolutions, also those by channel, are layers of windows; what a layer hears is that of the model
before it is rounded, so that one pass over the utterances is enough for a model of any kind.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from espnet_prune.surgery.inputs import rows_of
from espnet_prune.surgery.rounding import FORMS, Form, Rounded, nearest, note_rounded
from espnet_prune.surgery.surgeon import Settle, column_by_column

LEAST_NUMBERS = 512  # smaller weights save nothing that counts
DAMPING = 0.01  # of the mean square of what a layer hears, as in GPTQ's public code
LEAST_DAMPING = 1e-9  # of the same with its mean, for layers that always hear the same
POSITIONS = 2000  # of an utterance, that a layer is seen at


@torch.no_grad()
def round_weights(model: nn.Module, bits: int, passes: Sequence[Callable[[], object]] = ()) -> None:
    """Rounds a model's matrices and convolutions in place, and notes that they are stored so.

    Weights that are 0 stay so; layers that no pass runs get the nearest numbers. Convolutions by
    channel get 8 bits: they have few numbers, none of which another channel's makes good.

    Args:
        model: the model, in evaluation mode; its weights may be stored sparse.
        bits: 4 or 8.
        passes: each runs the model on one utterance; none for the nearest numbers.
    """
    rounded: dict[str, Rounded] = {}
    sums = _sums(_layers(model), passes) if passes else {}
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and weight.numel() >= LEAST_NUMBERS:
            layer = model.get_submodule(name.rpartition(".")[0])
            form = FORMS[8 if getattr(layer, "groups", 1) > 1 else bits]
            if layer in sums:
                scales = _round_layer(layer, sums[layer], form)
            else:
                found, scales = nearest(weight, form)
                weight.copy_(found)
            rounded[name] = Rounded(form.bits, scales.cpu())
    note_rounded(model, rounded)


def _layers(model: nn.Module) -> list[nn.Module]:
    """Those whose outputs are products of their weight and what they hear."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    own = [m for m in model.modules() if isinstance(m, kinds) and "weight" in m._parameters]
    return [layer for layer in own if isinstance(layer, nn.Linear) or _is_plain(layer)]


def _is_plain(layer: nn.Conv1d | nn.Conv2d) -> bool:
    """Whether ``rows_of`` says what it hears."""
    padded = not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
    return padded and set(layer.dilation) == {1}


def _sums(
    layers: Sequence[nn.Module], passes: Sequence[Callable[[], object]]
) -> dict[nn.Module, Tensor]:
    """X^T X (groups, inputs + 1, inputs + 1) of each layer that is run, a one behind its inputs.

    In float64, since what is left of them without the mean may be small.
    """
    sums: dict[nn.Module, Tensor] = {}

    def hear(layer: nn.Module, inputs: tuple) -> None:
        rows = rows_of(layer, inputs[0]).double()
        rows = rows[:: -(-len(rows) // POSITIONS)]
        rows = rows.reshape(len(rows), getattr(layer, "groups", 1), -1).transpose(0, 1)
        rows = torch.cat([rows, torch.ones_like(rows[..., :1])], dim=2)
        sums[layer] = sums.get(layer, 0) + rows.mT @ rows

    with ExitStack() as stack:
        for layer in layers:
            if layer.weight.numel() >= LEAST_NUMBERS:
                stack.callback(layer.register_forward_pre_hook(hear).remove)
        for run in passes:
            run()
    return sums


def _round_layer(layer: nn.Module, sums: Tensor, form: Form) -> Tensor:
    """Rounds a layer's weight in place and mends its bias; returns the scales (rows, stretches)."""
    sums = sums / sums[:, -1:, -1:]
    hessian, means = sums[:, :-1, :-1], sums[:, :-1, -1:]
    least = LEAST_DAMPING * _mean_square(hessian).clamp_min(1e-12)
    if layer.bias is not None:
        hessian = hessian - means @ means.mT
    groups, inputs = len(hessian), hessian.shape[1]
    damping = torch.maximum(DAMPING * _mean_square(hessian), least)
    hessian = hessian + damping[:, None, None] * torch.eye(inputs).to(hessian)
    before = layer.weight.double().reshape(groups, -1, inputs)
    after, scales = _rounded(before, torch.linalg.inv(hessian), form)
    layer.weight.copy_(after.view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.add_(((before - after) @ means).flatten())
    return scales.flatten(0, 1).float()


def _mean_square(hessian: Tensor) -> Tensor:
    """(groups,), of the inputs."""
    return hessian.diagonal(dim1=1, dim2=2).mean(dim=1)


def _rounded(weight: Tensor, inverse: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """Weights (groups, outputs, inputs) rounded column by column, and (groups, outputs, stretches).

    Args:
        weight: (groups, outputs, inputs).
        inverse: (groups, inputs, inputs), of what the inputs are together.
        form: what is stored.
    """
    there, rounded = weight != 0, torch.zeros_like(weight)
    scales: list[Tensor] = []

    def rounding(part: Tensor, begin: int, roots: Tensor) -> Settle:
        scale = form.scale_of(part, 1 / roots.square())[..., 0]
        scales.append(scale)

        def settle(place: int, column: Tensor) -> Tensor:
            found = form.levels(column, scale) * scale * there[..., begin + place]
            rounded[..., begin + place] = found
            return found

        return settle

    column_by_column(inverse, weight.clone(), form.width(weight.shape[-1]), rounding)
    return rounded, torch.stack(scales, dim=-1)
