"""Layers that read kept units, solved anew by least squares, so that what a cut costs is least.

After the reconstruction of "Channel Pruning for Accelerating Very Deep Neural Networks", He et al.
2017 (arXiv 1707.06168): a layer's weights are solved for what the uncompressed model says there,
from what the small model really hears, one layer after the other; and the last layer of a residual
branch also makes up for what the residual stream has lost so far. Ours: every kind of site, the
bias solved along, a ridge towards the weights as they are, all blocks of a stack in one chain. A
layer that reads the units of several sites, such as the one that merges two branches, is solved for
all of them at once.
With ``choose``, the same equations say which units go: those whose loss the others make good best,
one after the other (the optimal brain surgeon on units, as in ZipLM, Kurtic et al. 2023, arXiv
2302.04089), while how many of them stay is as the method says.

Few utterances without labels are enough, and no gradient is needed.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.sites.base import BRANCH, FEED_FORWARD_UNIT, ConsumedSite, Site
from espnet_prune.sites.decoder import DECODER
from espnet_prune.surgery.chain import Call, check_chain, lost, stack_with, until, watch_call
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.inputs import columns_of, rows_of, weight_of
from espnet_prune.surgery.plan import plan_of
from espnet_prune.surgery.sparse import sparse_layers
from espnet_prune.surgery.surgeon import (
    USUAL_DAMPING,
    Equations,
    Sums,
    bias_of,
    choose_units,
    of_weights,
    with_bias,
)

logger = logging.getLogger(__name__)
Run = Callable[[nn.Module], object]
POSITIONS = 2**17  # of all utterances, that a layer with a kernel is seen at


@torch.no_grad()
def refit(
    gated: GatedModel,
    teacher: nn.Module,
    masks: Mapping[str, Tensor],
    runs: Sequence[Run],
    damping: float | None = None,
    choose: bool = True,
) -> dict[str, Tensor]:
    """Solves the encoder's layers that read units anew, in place.

    Args:
        gated: the gated model, in evaluation mode; its weights may be trained.
        teacher: the uncompressed model, in evaluation mode, of the same names; the gated one may
            have lost blocks and channels of it before.
        masks: resolved masks (units,) of all sites.
        runs: each runs a model, the one given, on one utterance.
        damping: how much the weights' distance from where they are counts, relative to the mean
            square of what the layer reads; None: for each layer what suits utterances best that
            are held out (``surgery.surgeon.Sums``).
        choose: whether the units of each layer are chosen anew, as many as before, by what their
            loss does to the layer's output (``surgery.surgeon``).

    Returns:
        The masks (units,) of all sites.

    Raises:
        ModelError: a stack whose blocks don't simply follow each other; a layer that reads units,
            but isn't called, or that lost single weights before.
    """
    masks = dict(masks)
    task = _Task(gated, masks, damping, choose)
    sites = [s for s in gated.site_map.sites.values() if _is_read(gated, s, masks)]
    _refuse_sparse(gated, sites)
    names = {id(module): name for name, module in gated.model.named_modules()}

    def twin(module: nn.Module) -> nn.Module:
        return teacher.get_submodule(names[id(module)])

    for site in (s for s in sites if s.block is None):
        layer, equations = site.consumer, _Equations(task, [site], len(runs))
        same = _same_units(gated.model, teacher, getattr(site, "reader", None))
        for run in runs:
            with holding(gated, masks):
                heard = until(layer, partial(run, gated)).args[0]
            said = twin(layer)(until(twin(layer), partial(run, teacher)).args[0])
            equations.add(heard, said if same is None else said[:, same])
        equations.solve()
    layers = _stack(gated)
    if layers is None:
        return masks
    with holding(gated, masks):
        ours = [until(layers[0], partial(run, gated)) for run in runs]
    twins, passed = twin(layers), 0
    theirs = [until(twins[0], partial(run, teacher)) for run in runs]
    with task.acting():
        for index, place in enumerate(_same_blocks(gated.model, teacher, len(layers), len(twins))):
            layer, members = layers[index], [s for s in sites if s.block == index]
            for between in twins[passed:place]:  # which the model had lost before
                theirs = [call.passed_on(between) for call in theirs]
            _refit_block(task, members, layer, twins[place], ours, theirs)
            ours = [call.passed_on(layer) for call in ours]
            theirs, passed = [call.passed_on(twins[place]) for call in theirs], place + 1
            logger.info(
                "refit: block %d of %d: %.4f of the stream's power is lost",
                index + 1,
                len(layers),
                lost(ours, theirs),
            )
    with holding(gated, masks):
        check_chain(layers, ours[0], partial(runs[0], gated))
    return masks


def _refuse_sparse(gated: GatedModel, sites: Sequence[ConsumedSite]) -> None:
    """ModelError for a layer whose zeros would be solved for, too."""
    sparse = sparse_layers(gated.model)
    for site in sites:
        if any(site.consumer is layer for layer in sparse):
            raise ModelError(
                f"refit: {site.name}: single weights of the layer that reads its units were pruned "
                "before, and all of them would come back; leave the method's key `refit` out"
            )


def _same_blocks(model: nn.Module, teacher: nn.Module, ours: int, theirs: int) -> list[int]:
    """Places of a model's blocks among the teacher's, of whose it may have lost some before.

    Args:
        model: the one that is refitted.
        teacher: the uncompressed one.
        ours: how many blocks it has.
        theirs: how many the teacher has.
    """
    plans = (plan_of(each) for each in (model, teacher))
    numbers = [
        list(range(number)) if plan is None else plan.without(DECODER).kept_blocks()
        for plan, number in zip(plans, (ours, theirs), strict=True)
    ]
    return [numbers[1].index(block) for block in numbers[0]]


def _same_units(model: nn.Module, teacher: nn.Module, name: str | None) -> list[int] | None:
    """Places of a site's units among the teacher's, where the model may have lost some before."""
    before = plan_of(model)
    if name is None or before is None:
        return None
    site, there = before.sites[name], plan_of(teacher)
    units = list(range(site.units) if there is None else there.sites[name].kept)
    return [units.index(unit) for unit in site.kept]


@dataclass(frozen=True)
class _Task:
    """What ``refit`` was given; the masks of layers whose units are chosen anew are replaced."""

    gated: GatedModel
    masks: dict[str, Tensor]
    damping: float | None
    choose: bool

    def act(self) -> None:
        """Lets the masks, as they are now, act while blocks are run by themselves."""
        self.clear()
        for name, mask in self.masks.items():
            self.gated.site_map.sites[name].apply(mask)

    def clear(self) -> None:
        for site in self.gated.site_map.sites.values():
            site.clear()

    @contextmanager
    def acting(self) -> Iterator[None]:
        try:
            self.act()
            yield
        finally:
            self.clear()

    def branch(self, site: ConsumedSite) -> Site | None:
        """The branch whose last layer reads the site's units."""
        branch = self.gated.site_map.sites.get(site.parent)
        return branch if getattr(branch, "last", None) is site.consumer else None


def _reads_windows(layer: nn.Module) -> bool:
    """Whether it reads several frames at a time, or bins of them."""
    over_time = isinstance(layer, nn.Conv1d) and layer.kernel_size[0] > 1
    return over_time or isinstance(layer, nn.Conv2d)


def _is_read(gated: GatedModel, site: object, masks: Mapping[str, Tensor]) -> bool:
    """Whether a layer of the encoder reads units of a site, and is there at all."""
    if not isinstance(site, ConsumedSite) or site.name.startswith(DECODER):
        return False
    mask, above = masks[site.name], site.parent
    while above is not None:
        if not masks[above].any():
            return False
        above = gated.site_map.sites[above].parent
    return bool(mask.any())


def _stack(gated: GatedModel) -> Sequence[nn.Module] | None:
    """The encoder's blocks, in order."""
    branches = gated.site_map.of_kinds((BRANCH,))
    blocks = (stack_with(gated.model, s.layer) for s in branches if not s.name.startswith(DECODER))
    return next((found for found in blocks if found is not None), None)


def _refit_block(
    task: _Task,
    sites: Sequence[ConsumedSite],
    layer: nn.Module,
    twin: nn.Module,
    ours: Sequence[Call],
    theirs: Sequence[Call],
) -> None:
    """Solves one block's layers in the order in which they are run."""
    names = {id(module): name for name, module in layer.named_modules()}
    read: dict[str, list[ConsumedSite]] = {}
    for site in sites:
        read.setdefault(names[id(site.consumer)], []).append(site)
    norms = {name: getattr(task.branch(group[0]), "norm", None) for name, group in read.items()}
    watched = [*read, *filter(None, norms.values())]
    said = [watch_call(twin, watched, call) for call in theirs]
    order = list(said[0].inputs)
    uncalled = [group[0].name for name, group in read.items() if name not in order]
    if uncalled:
        raise ModelError(
            f"refit: {uncalled[0]}: the layer that reads its units isn't called, only its weight "
            "is read, for which refitting isn't known yet; leave the method's key `refit` out"
        )
    for name in filter(read.__contains__, order):
        norm, site = norms[name], read[name][0]
        equations = _Equations(task, read[name], len(ours))
        task.act()
        share = getattr(site, "share", 1.0)
        scale = getattr(layer, "ff_scale", share) if site.kind == FEED_FORWARD_UNIT else 1.0
        for call, wanted in zip(ours, said, strict=True):
            heard = _heard(layer, name, norm, call)
            target = wanted.outputs[name]
            if norm:
                target = target + _like(target, wanted.inputs[norm] - heard[norm]) / scale
            equations.add(heard[name], target)
        equations.solve()
        task.act()


def _heard(layer: nn.Module, name: str, norm: str | None, call: Call) -> dict[str, Tensor]:
    """Inputs of a layer and of the norm before it, by name; the pass ends there."""
    seen: dict[str, Tensor] = {}

    def keep(_: nn.Module, inputs: tuple) -> None:
        seen[norm] = inputs[0]

    with ExitStack() as stack:
        if norm:
            handle = layer.get_submodule(norm).register_forward_pre_hook(keep)
            stack.callback(handle.remove)
        seen[name] = until(layer.get_submodule(name), partial(call.on, layer)).args[0]
    return seen


def _like(target: Tensor, stream: Tensor) -> Tensor:
    """The stream (B, T, D) in the layout of a layer's output."""
    return stream if stream.shape == target.shape else stream.transpose(1, 2)


class _Equations:
    """The normal equations of the layer that reads the kept units of some sites, bias included.

    Args:
        task: with ``choose``, the sites' units are all kept until the layer is solved, then as many
            of each site as before.
        sites: whose units the layer reads, all of as many columns.
        utterances: how many will be added.
    """

    def __init__(self, task: _Task, sites: Sequence[ConsumedSite], utterances: int) -> None:
        self.task, self.sites, self.layer = task, sites, sites[0].consumer
        self.stay = [int(task.masks[site.name].count_nonzero()) for site in sites]
        if task.choose:
            ones = {site.name: torch.ones_like(task.masks[site.name]) for site in sites}
            task.masks.update(ones)
        pairs = [self._columns_and_values(site) for site in sites]
        self.columns, self.values = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        self.biased = self.layer.bias is not None
        scale = getattr(self.layer, "output_scale", None)  # of a whole branch, its bias too
        self.bias_value = 1.0 if scale is None else float(scale)
        self.sums = Sums()
        self.positions = max(1, POSITIONS // utterances)

    def _columns_and_values(self, site: ConsumedSite) -> tuple[Tensor, Tensor]:
        """The columns (columns,) of a site's kept units, and by what they are multiplied."""
        mask, branch = self.task.masks[site.name], self.task.branch(site)
        if branch is not None:
            mask = mask * self.task.masks[branch.name]
        mask = mask.to(self.layer.weight.device)
        units = mask.nonzero()[:, 0]
        columns = columns_of(site, units)
        return columns, mask[units].double().repeat_interleave(len(columns) // len(units))

    def add(self, heard: Tensor, wanted: Tensor) -> None:
        """One utterance: what the layer hears, and what it should say."""
        rows, targets = rows_of(self.layer, heard), _outputs(self.layer, wanted)
        step = -(-len(rows) // self.positions) if _reads_windows(self.layer) else 1
        rows, targets = rows[::step, self.columns].double(), targets[::step].double()
        if self.biased:
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        self.sums.add(rows.T @ rows, rows.T @ targets)

    def _choose(self, equations: Equations, damping: float) -> Tensor:
        """Which of the columns (columns,) stay, by the units that are chosen."""
        inside = torch.ones(len(self.columns), dtype=torch.bool, device=self.columns.device)
        if self.task.choose:
            about = of_weights(equations, self._before(), damping, self.biased)
            units = [site.units for site in self.sites]
            by_unit = inside.view(sum(units), -1)  # the same memory
            by_unit[:] = False
            by_unit[choose_units(*about, units, self.stay)] = True
        return inside

    def _before(self) -> Tensor:
        """The weights (columns, outputs) that the solution is pulled to."""
        return weight_of(self.sites[0])[self.columns] * self.values[:, None]

    def _solution(self, equations: Equations, inside: Tensor, damping: float) -> Tensor:
        """Weights (columns, outputs), 0 where columns don't stay."""
        both = torch.cat([inside, inside.new_ones(len(equations[0]) - len(inside))])
        equations = equations[0][both][:, both], equations[1][both]
        before = self._before()
        about = of_weights(equations, before[inside], damping, self.biased)
        found = torch.zeros_like(before)
        found[inside] = torch.linalg.solve(*about)
        return found

    def _damping(self) -> float:
        """By the utterances that are held out, with units that the others choose."""
        inside = self._choose(self.sums.parts[0], USUAL_DAMPING)

        def weights(equations: Equations, damping: float) -> Tensor:
            return with_bias(equations, self._solution(equations, inside, damping), self.biased)

        return self.sums.damping(weights)

    def solve(self) -> None:
        """Writes the solution into the layer; its other columns stay. Fixes the sites' masks."""
        damping = self._damping() if self.task.damping is None else self.task.damping
        logger.debug("%s: damping %g", self.sites[0].name, damping)
        equations = self.sums.all()
        inside = self._choose(equations, damping)
        found = self._solution(equations, inside, damping)
        if self.task.choose:
            numbers = [site.units for site in self.sites]
            units = inside.view(sum(numbers), -1)[:, 0].split(numbers)
            for site, chosen in zip(self.sites, units, strict=True):
                self.task.masks[site.name] = chosen.to(self.task.masks[site.name])
        flat = self.layer.weight.detach().view(len(self.layer.weight), -1)  # the model changes too
        flat[:, self.columns[inside]] = (found / self.values[:, None])[inside].T.to(flat)
        if self.biased:
            self.layer.bias.copy_(bias_of(equations, found) / self.bias_value)


def _outputs(layer: nn.Module, said: Tensor) -> Tensor:
    """What it says at each position: (positions, outputs)."""
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        said = said.movedim(1, -1)
    return said.reshape(-1, said.shape[-1])
