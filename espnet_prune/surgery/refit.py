"""Layers that read kept units, solved anew by least squares, so that what a cut costs is least.

After the reconstruction of "Channel Pruning for Accelerating Very Deep Neural Networks", He et al.
2017 (arXiv 1707.06168): a layer's weights are solved for what the uncompressed model says there,
from what the small model really hears, one layer after the other; and the last layer of a residual
branch also makes up for what the residual stream has lost so far. Ours: every kind of site, the
bias solved along, a ridge towards the weights as they are, all blocks of a stack in one chain.
With ``choose``, the same equations say which units go: those whose loss the others make good best,
one after the other (the optimal brain surgeon on units, as in ZipLM, Kurtic et al. 2023, arXiv
2302.04089), while how many of them stay is as the method says.

Few utterances without labels are enough, and no gradient is needed.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.sites.base import BRANCH, FEED_FORWARD_UNIT, ConsumedSite
from espnet_prune.sites.decoder import DECODER
from espnet_prune.surgery.chain import Call, check_chain, lost, stack_with, until, watch_call
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.inputs import columns_of, rows_of, weight_of
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
POSITIONS = 2**17  # of all utterances, that a convolution of a front-end is seen at


@torch.no_grad()
def refit(
    gated: GatedModel,
    teacher: nn.Module,
    masks: Mapping[str, Tensor],
    runs: Sequence[Run],
    damping: float | None = None,
    choose: bool = False,
) -> dict[str, Tensor]:
    """Solves the encoder's layers that read units anew, in place.

    Args:
        gated: the gated model, in evaluation mode; its weights may be trained.
        teacher: the uncompressed model, in evaluation mode, of the same names.
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
        ModelError: a stack whose blocks don't simply follow each other; a layer that reads units
            of several sites or, in a block, several frames at a time, or that isn't called.
    """
    masks = dict(masks)
    sites = [s for s in gated.site_map.sites.values() if _is_read(gated, s, masks)]
    _check_readers(gated.site_map.sites.values())
    names = {id(module): name for name, module in gated.model.named_modules()}

    def twin(module: nn.Module) -> nn.Module:
        return teacher.get_submodule(names[id(module)])

    for site in (s for s in sites if s.block is None):
        layer, equations = site.consumer, _Equations(site, masks, choose, len(runs))
        for run in runs:
            with holding(gated, masks):
                heard = until(layer, partial(run, gated)).args[0]
            equations.add(heard, twin(layer)(until(twin(layer), partial(run, teacher)).args[0]))
        equations.solve(damping)
    layers = _stack(gated)
    if layers is None:
        return masks
    with holding(gated, masks):
        ours = [until(layers[0], partial(run, gated)) for run in runs]
    theirs = [until(twin(layers[0]), partial(run, teacher)) for run in runs]
    with _acting(gated, masks):
        for index, layer in enumerate(layers):
            members = [s for s in sites if s.block == index]
            _refit_block(
                layer, twin(layer), _branches(gated, members), ours, theirs, masks, damping, choose
            )
            ours = [call.passed_on(layer) for call in ours]
            theirs = [call.passed_on(twin(layer)) for call in theirs]
            logger.info(
                "refit: block %d of %d: %.4f of the stream's power is lost",
                index + 1,
                len(layers),
                lost(ours, theirs),
            )
    with holding(gated, masks):
        check_chain(layers, ours[0], partial(runs[0], gated))
    return masks


def _check_readers(sites: Iterable[object]) -> None:
    """ModelError for layers whose equations aren't known."""
    read: dict[int, str] = {}
    for site in sites:
        if not isinstance(site, ConsumedSite):
            continue
        layer, other = site.consumer, read.setdefault(id(site.consumer), site.name)
        wide = site.block is not None and _reads_windows(layer)
        if wide or other != site.name:
            what = "several frames at a time" if wide else f"together with those of {other}"
            raise ModelError(
                f"refit: {site.name}: its units are read {what}, for which refitting isn't known "
                "yet; leave the method's key `refit` out"
            )


def _reads_windows(layer: nn.Module) -> bool:
    """Whether it reads several frames at a time, as a front-end's convolutions do."""
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


@contextmanager
def _acting(gated: GatedModel, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Lets the masks act while blocks are run by themselves."""
    sites = gated.site_map.sites
    try:
        for name, mask in masks.items():
            sites[name].apply(mask)
        yield
    finally:
        for site in sites.values():
            site.clear()


def _branches(
    gated: GatedModel, sites: Sequence[ConsumedSite]
) -> list[tuple[ConsumedSite, str | None]]:
    """Each site with the attribute of its block's norm that reads the stream for its branch."""
    branches = gated.site_map.sites
    return [(site, getattr(branches.get(site.parent), "norm", None)) for site in sites]


def _refit_block(
    layer: nn.Module,
    twin: nn.Module,
    branches: Sequence[tuple[ConsumedSite, str | None]],
    ours: Sequence[Call],
    theirs: Sequence[Call],
    masks: dict[str, Tensor],
    damping: float | None,
    choose: bool,
) -> None:
    """Solves one block's sites in the order in which they are run."""
    names = {id(module): name for name, module in layer.named_modules()}
    consumers = {site.name: names[id(site.consumer)] for site, _ in branches}
    watched = [*consumers.values(), *(norm for _, norm in branches if norm)]
    said = [watch_call(twin, watched, call) for call in theirs]
    order = list(said[0].inputs)
    uncalled = [name for name, path in consumers.items() if path not in order]
    if uncalled:
        raise ModelError(
            f"refit: {uncalled[0]}: the layer that reads its units isn't called, only its weight "
            "is read, for which refitting isn't known yet; leave the method's key `refit` out"
        )
    for site, norm in sorted(branches, key=lambda b: order.index(consumers[b[0].name])):
        name, equations = consumers[site.name], _Equations(site, masks, choose, len(ours))
        site.apply(masks[site.name])
        share = getattr(site, "share", 1.0)
        scale = getattr(layer, "ff_scale", share) if site.kind == FEED_FORWARD_UNIT else 1.0
        for call, wanted in zip(ours, said, strict=True):
            heard = _heard(layer, name, norm, call)
            target = wanted.outputs[name]
            if norm:
                target = target + _like(target, wanted.inputs[norm] - heard[norm]) / scale
            equations.add(heard[name], target)
        equations.solve(damping)
        site.apply(masks[site.name])


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
    """The normal equations of the layer that reads a site's kept units, bias included.

    Args:
        site: whose units the layer reads.
        masks: of all sites.
        choose: the site's units are all kept until the layer is solved, then as many as before.
        utterances: how many will be added.
    """

    def __init__(
        self, site: ConsumedSite, masks: dict[str, Tensor], choose: bool, utterances: int
    ) -> None:
        self.site, self.masks, self.stay = site, masks, None
        if choose:
            self.stay = int(masks[site.name].count_nonzero())
            masks[site.name] = torch.ones_like(masks[site.name])
        mask = masks[site.name].to(site.consumer.weight.device)
        units = mask.nonzero()[:, 0]
        self.columns = columns_of(site, units)
        self.values = mask[units].double().repeat_interleave(len(self.columns) // len(units))
        self.biased = site.consumer.bias is not None
        self.sums = Sums()
        self.positions = max(1, POSITIONS // utterances)

    def add(self, heard: Tensor, wanted: Tensor) -> None:
        """One utterance: what the layer hears, and what it should say."""
        layer = self.site.consumer
        rows, targets = rows_of(layer, heard), _outputs(layer, wanted)
        step = -(-len(rows) // self.positions) if _reads_windows(layer) else 1
        rows, targets = rows[::step, self.columns].double(), targets[::step].double()
        if self.biased:
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        self.sums.add(rows.T @ rows, rows.T @ targets)

    def _choose(self, equations: Equations, damping: float) -> Tensor:
        """Which of the columns (columns,) stay, by the units that are chosen."""
        mask = self.masks[self.site.name]
        number = len(self.columns)
        if self.stay is None:
            return torch.ones(number, dtype=torch.bool, device=self.columns.device)
        about = of_weights(equations, self._before(), damping, self.biased)
        inside = torch.zeros(len(mask), dtype=torch.bool, device=self.columns.device)
        inside[choose_units(*about, len(mask), self.stay)] = True
        return inside.repeat_interleave(number // len(mask))

    def _before(self) -> Tensor:
        """The weights (columns, outputs) that the solution is pulled to."""
        return weight_of(self.site)[self.columns] * self.values[:, None]

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

    def solve(self, damping: float | None) -> None:
        """Writes the solution into the layer; its other columns stay. Fixes the site's mask."""
        if damping is None:
            damping = self._damping()
        logger.debug("%s: damping %g", self.site.name, damping)
        equations = self.sums.all()
        inside = self._choose(equations, damping)
        found = self._solution(equations, inside, damping)
        layer = self.site.consumer
        if self.stay is not None:
            mask = self.masks[self.site.name]
            units = inside.view(len(mask), -1)[:, 0]
            self.masks[self.site.name] = units.to(mask)
        flat = layer.weight.detach().view(len(layer.weight), -1)  # the model changes with it
        flat[:, self.columns[inside]] = (found / self.values[:, None])[inside].T.to(flat)
        if self.biased:
            layer.bias.copy_(bias_of(equations, found))


def _outputs(layer: nn.Module, said: Tensor) -> Tensor:
    """What it says at each position: (positions, outputs)."""
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        said = said.movedim(1, -1)
    return said.reshape(-1, said.shape[-1])
