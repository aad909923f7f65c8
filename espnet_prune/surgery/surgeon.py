"""Single weights taken out by what their loss does to a layer's output, and the others solved anew.

The layer-wise optimal brain surgeon: of a linear layer Y = X W^T those weights go whose w^2 /
[H^-1]_jj is least, with H = X^T X (Hassibi and Stork 1993; by layer Dong et al. 2017, arXiv
1705.07565), column by column with one H for all outputs (SparseGPT, Frantar and Alistarh 2023,
arXiv 2301.00774). Ours, as in ``surgery.refit``: X is what the pruned model really hears there, the
target what the uncompressed model says; the kept weights are then the least squares for their
mask, and the bias is solved along.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.sites.weights import WeightSite
from espnet_prune.surgery.chain import Call, check_chain, lost, stack_with, until, watch_call
from espnet_prune.surgery.cut import twin_of
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.inputs import rows_of

logger = logging.getLogger(__name__)
BLOCK = 128  # columns whose masks are chosen together, as in the public code
ITERATIONS = 200  # of conjugate gradients, at most
ACCURACY = 1e-4  # of the residual, relative to the right side
HELD_OUT = 5  # every fifth utterance chooses the damping, and is then solved for with the others
DAMPINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
USUAL_DAMPING = 0.1  # with too few utterances to choose by
Settle = Callable[[int, Tensor], Tensor]
Equations = tuple[Tensor, Tensor]  # X^T X (inputs, inputs), X^T Y (inputs, outputs); bias last


class Sums:
    """A layer's normal equations, summed over utterances; of those held out apart.

    Attributes:
        parts: X^T X and X^T Y of the utterances that are solved for, and of those held out.
        utterances: how many were added.
    """

    def __init__(self) -> None:
        self.parts: list[Equations | None] = [None, None]
        self.utterances = 0

    def add(self, own: Tensor, cross: Tensor) -> None:
        """One utterance: X^T X (inputs, inputs) and X^T Y (inputs, outputs), the bias last."""
        self.utterances += 1
        place = int(self.utterances % HELD_OUT == 0)
        before = self.parts[place]
        self.parts[place] = (own, cross) if before is None else (before[0] + own, before[1] + cross)

    def all(self) -> Equations:
        """Of all utterances."""
        there = [part for part in self.parts if part is not None]
        return sum(part[0] for part in there), sum(part[1] for part in there)

    def damping(self, solve: Callable[[Equations, float], Tensor]) -> float:
        """The damping by which the solution suits the utterances best that were held out.

        Args:
            solve: what equations and a damping give: weights (inputs, outputs), the bias last.
        """
        fitted, held_out = self.parts
        if held_out is None:
            return USUAL_DAMPING
        own, cross = held_out

        def error(damping: float) -> float:  # up to the power of what should be said
            found = solve(fitted, damping)
            return float((found * (own @ found - 2 * cross)).sum())

        return min(DAMPINGS, key=error)


@torch.no_grad()
def remove_weights(
    gated: GatedModel,
    sites: Sequence[WeightSite],
    shares: Mapping[str, float],
    passes: Sequence[Callable[[], object]],
    damping: float | None,
) -> dict[str, Tensor]:
    """Takes single weights out of an encoder's blocks, one after the other, in place.

    What the layers of one block say for all utterances is held in memory.

    Args:
        gated: the gated model, in evaluation mode, with the uncompressed model's weights.
        sites: those of single weights.
        shares: which share of its weights each site loses.
        passes: each runs the gated model on one utterance.
        damping: pulls the weights to what they are, relative to the mean square of what a layer
            hears; None: of ``DAMPINGS``, for each layer by utterances that are held out.

    Returns:
        A mask (weights,) for each site.

    Raises:
        ModelError: sites that aren't all in one stack, or blocks that don't simply follow each
            other.
    """
    layers = stack_with(gated.model, sites[0].layer) or []
    inside = {id(module) for layer in layers for module in layer.modules()}
    for site in sites:
        if id(site.layer) not in inside:
            raise ModelError(
                f"{site.name}: it is in no block of one encoder, and layers of several stacks "
                "can't be solved one after the other; choose another method for this model"
            )
    twins, masks = twin_of(layers), {}
    with holding(gated, {}):
        ours = [until(layers[0], run) for run in passes]
        theirs = list(ours)
        for index, (layer, twin) in enumerate(zip(layers, twins, strict=True)):
            names = {id(module): name for name, module in layer.named_modules()}
            members = {names[id(s.layer)]: s for s in sites if id(s.layer) in names}
            wanted = [watch_call(twin, list(members), call) for call in theirs]
            for group in _heard_together(wanted[0].inputs):
                solved = _equations(layer, group, ours, [w.outputs for w in wanted])
                for name, sums in solved.items():
                    site = members[name]
                    about = (sums, shares[site.name], damping)
                    masks[site.name] = prune_layer(site.layer, *about).flatten()
            ours = [call.passed_on(layer) for call in ours]
            theirs = [call.passed_on(twin) for call in theirs]
            gone = lost(ours, theirs)
            logger.info(
                "block %d of %d: %.4f of the stream's power lost", index + 1, len(layers), gone
            )
        check_chain(layers, ours[0], passes[0])
    return masks


def _heard_together(inputs: Mapping[str, Tensor]) -> list[list[str]]:
    """The names in the order in which they are run; those that hear one tensor are one group."""
    groups: dict[int, list[str]] = {}
    for name, heard in inputs.items():
        groups.setdefault(id(heard), []).append(name)
    return list(groups.values())


def _equations(
    block: nn.Module,
    names: Sequence[str],
    calls: Sequence[Call],
    wanted: Sequence[Mapping[str, Tensor]],
) -> dict[str, Sums]:
    """The normal equations of layers that hear the same."""
    sums = {name: Sums() for name in names}
    first = block.get_submodule(names[0])
    for call, said in zip(calls, wanted, strict=True):
        heard = until(first, partial(call.on, block)).args[0]
        rows = rows_of(first, heard).double()
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        own = rows.T @ rows
        for name in names:
            sums[name].add(own, rows.T @ said[name].flatten(0, -2).double())
    return sums


def prune_layer(layer: nn.Linear, sums: Sums, share: float, damping: float | None) -> Tensor:
    """Chooses a layer's mask and solves its kept weights and its bias, in place.

    Args:
        layer: its weight is (outputs, inputs).
        sums: of what it hears, with a one behind, and of what it should say.
        share: share of the weights that go.
        damping: relative to the mean square of what it hears; None: see ``Sums.damping``.

    Returns:
        The mask (outputs, inputs), of zeros and ones.
    """
    biased, before = layer.bias is not None, layer.weight.T.double()

    def first_solution(equations: Equations, damping: float) -> Tensor:
        about = of_weights(equations, before, damping, biased)
        return with_bias(equations, choose_mask(*about, share)[1].T, biased)

    if damping is None:
        damping = sums.damping(first_solution)
    logger.debug("damping %g", damping)
    equations = sums.all()
    hessian, right = of_weights(equations, before, damping, biased)
    mask, start = choose_mask(hessian, right, share)
    weight = solve_kept(hessian, right, mask, start)
    layer.weight.copy_(weight)
    if biased:
        layer.bias.copy_(bias_of(equations, weight.T))
    return mask.to(layer.weight)


def of_weights(
    equations: Equations, before: Tensor, damping: float, biased: bool
) -> tuple[Tensor, Tensor]:
    """A layer's equations without its bias, which takes what the means leave of any weights.

    Args:
        equations: of what it hears, with a one behind where it has a bias.
        before: (inputs, outputs), what the weights are pulled to.
        damping: relative to the mean square of what it hears.
        biased: whether it has one.

    Returns:
        The matrix (inputs, inputs), positive definite, and the right side (inputs, outputs).
    """
    own, cross = equations
    inputs = len(before)
    ridge = damping * own.diagonal()[:inputs].mean().clamp_min(1e-12)
    hessian = own[:inputs, :inputs] + ridge * torch.eye(inputs).to(own)
    right = cross[:inputs] + ridge * before
    if biased:
        ends = own[:inputs, inputs:] / own[inputs, inputs]
        hessian = hessian - ends @ own[inputs:, :inputs]
        right = right - ends @ cross[inputs:]
    return hessian, right


def bias_of(equations: Equations, weight: Tensor) -> Tensor:
    """The bias (outputs,) that goes with weights (inputs, outputs)."""
    own, cross = equations
    inputs = len(weight)
    return (cross[inputs] - own[inputs, :inputs] @ weight) / own[inputs, inputs]


def with_bias(equations: Equations, weight: Tensor, biased: bool) -> Tensor:
    """Weights (inputs, outputs), and below them the row of their bias where equations have one."""
    if len(equations[0]) == len(weight):
        return weight
    bias = bias_of(equations, weight) if biased else torch.zeros_like(weight[0])
    return torch.cat([weight, bias[None]])


def choose_mask(hessian: Tensor, right: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Which weights stay, column by column, the later columns making good what earlier ones lose.

    Args:
        hessian: (inputs, inputs), positive definite.
        right: (inputs, outputs), the right side of the normal equations.
        share: share of the weights that go.

    Returns:
        The mask (outputs, inputs), and weights from which to solve on.
    """
    inverse = torch.linalg.inv(hessian)
    weight = (inverse @ right).T.contiguous()
    mask = torch.ones_like(weight)

    def masked(part: Tensor, begin: int, own: Tensor) -> Settle:
        costs = (part / own).square()
        gone = torch.argsort(costs.flatten(), stable=True)[: round(share * costs.numel())]
        chosen = mask[:, begin : begin + costs.shape[1]]
        chosen[gone // costs.shape[1], gone % costs.shape[1]] = 0.0
        return lambda place, column: column * chosen[:, place]

    column_by_column(inverse, weight, BLOCK, masked)
    return mask, weight * mask


def column_by_column(
    inverse: Tensor,
    weight: Tensor,
    width: int,
    settling: Callable[[Tensor, int, Tensor], Settle],
) -> None:
    """Settles a layer's columns one after the other, in place, each making good what was settled.

    Args:
        inverse: (..., inputs, inputs), that of the normal equations' matrix.
        weight: (..., outputs, inputs), the solution of the normal equations.
        width: of the blocks that are settled together.
        settling: called with a block (..., outputs, width), its first column, and for each of its
            columns the root (..., width) of 1 / what a unit of error costs there; what it returns
            is called with a column's place in the block and the column (..., outputs), which has
            made good what earlier ones lost, and returns what it will be.
    """
    factor = torch.linalg.cholesky(inverse, upper=True)
    for begin in range(0, weight.shape[-1], width):
        end = min(begin + width, weight.shape[-1])
        part, own = weight[..., begin:end], factor[..., begin:end, begin:end]
        settle = settling(part, begin, own.diagonal(dim1=-2, dim2=-1))
        errors = torch.zeros_like(part)
        for place in range(end - begin):
            column = part[..., place]
            errors[..., place] = (column - settle(place, column)) / own[..., place, place, None]
            part[..., place:] -= errors[..., place, None] * own[..., None, place, place:]
        weight[..., end:] -= errors @ factor[..., begin:end, end:]


def solve_kept(hessian: Tensor, right: Tensor, mask: Tensor, start: Tensor) -> Tensor:
    """The least squares of all outputs, each with its own mask, by conjugate gradients.

    Args:
        hessian: (inputs, inputs), positive definite.
        right: (inputs, outputs).
        mask: (outputs, inputs).
        start: (outputs, inputs), where to begin; 0 where the mask is.

    Returns:
        The weights (outputs, inputs).
    """
    diagonal, wanted, weight = hessian.diagonal(), right.T * mask, start
    residual = wanted - (weight @ hessian) * mask
    direction = residual / diagonal
    power = (residual * direction).sum(dim=1, keepdim=True)
    enough = ACCURACY * wanted.norm()
    for _ in range(ITERATIONS):
        if residual.norm() <= enough:
            break
        image = (direction @ hessian) * mask
        step = power / (direction * image).sum(dim=1, keepdim=True).clamp_min(1e-300)
        weight = weight + step * direction
        residual = residual - step * image
        scaled = residual / diagonal
        now = (residual * scaled).sum(dim=1, keepdim=True)
        direction, power = scaled + now / power.clamp_min(1e-300) * direction, now
    return weight


@torch.no_grad()
def choose_units(
    hessian: Tensor, right: Tensor, units: Sequence[int], stay: Sequence[int]
) -> Tensor:
    """Which units a layer can least do without, once its other weights are solved anew.

    The cheapest goes, by tr(W_u^T ([H^-1]_uu)^-1 W_u) for its columns u; weights and H^-1 become
    those without it, and so on (structured, as in ZipLM, Kurtic et al. 2023, arXiv 2302.04089).

    Args:
        hessian: (columns, columns), positive definite; each unit's columns stand together, as many
            for each.
        right: (columns, outputs), the right side of the normal equations.
        units: how many there are of each site that the layer reads, one after the other.
        stay: how many of them stay.

    Returns:
        Their indices among all units, in order.
    """
    device = right.device
    inverse, total = torch.linalg.inv(hessian), sum(units)
    weight, left = inverse @ right, torch.ones(total, dtype=torch.bool, device=device)
    places = torch.arange(len(hessian), device=device).view(total, -1)
    numbers = torch.tensor(units, device=device)
    site = torch.arange(len(units), device=device).repeat_interleave(numbers)
    spare = numbers - torch.tensor(stay, device=device)
    while bool(spare.any()):
        blocks = inverse[places[:, :, None], places[:, None, :]]
        blocks[~left] = torch.eye(places.shape[1]).to(blocks)
        parts = weight[places]
        if places.shape[1] == 1:  # hundreds of small systems take most of the time
            solved = parts / blocks
        else:
            solved = torch.linalg.solve(blocks, parts)
        costs = (parts * solved).sum(dim=(1, 2))
        may_go = left & (spare[site] > 0)
        unit = int(costs.masked_fill(~may_go, torch.inf).argmin())
        left[unit] = False
        spare[site[unit]] -= 1
        columns = places[unit]
        step = torch.linalg.solve(blocks[unit], inverse[columns])
        weight -= step.T @ weight[columns]
        inverse -= inverse[:, columns] @ step
    return left.nonzero()[:, 0]
