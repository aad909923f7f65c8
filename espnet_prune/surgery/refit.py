"""Layers that read kept units, solved anew by least squares, so that what a cut costs is least.

After the reconstruction of "Channel Pruning for Accelerating Very Deep Neural Networks", He et al.
2017 (arXiv 1707.06168): a layer's weights are solved for what the uncompressed model says there,
from what the small model really hears, one layer after the other; and the last layer of a residual
branch also makes up for what the residual stream has lost so far. Ours: every kind of site, the
bias solved along, a ridge towards the weights as they are, all blocks of a stack in one chain.

Few utterances without labels are enough, and no gradient is needed.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.sites.base import BRANCH, FEED_FORWARD_UNIT, ConsumedSite
from espnet_prune.sites.decoder import DECODER
from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.inputs import columns_of, first_tensor, rows_of, weight_of

logger = logging.getLogger(__name__)
Run = Callable[[nn.Module], object]
CHAIN_TOLERANCE = 1e-3  # of the stream's largest value: block by block, or in one pass
POSITIONS = 4096  # of an utterance, at most, that a convolution over time and frequency is seen at


@torch.no_grad()
def refit(
    gated: GatedModel,
    teacher: nn.Module,
    masks: Mapping[str, Tensor],
    runs: Sequence[Run],
    damping: float = 0.01,
) -> None:
    """Solves the encoder's layers that read units anew, in place.

    Args:
        gated: the gated model, in evaluation mode; its weights may be trained.
        teacher: the uncompressed model, in evaluation mode, of the same names.
        masks: resolved masks (units,) of all sites.
        runs: each runs a model, the one given, on one utterance.
        damping: how much the weights' distance from where they are counts, relative to the mean
            square of what the layer reads.

    Raises:
        ModelError: a stack whose blocks don't simply follow each other; a layer that reads units
            of several sites, or several frames at a time.
    """
    sites = [s for s in gated.site_map.sites.values() if _is_read(gated, s, masks)]
    _check_readers(gated.site_map.sites.values())
    names = {id(module): name for name, module in gated.model.named_modules()}

    def twin(module: nn.Module) -> nn.Module:
        return teacher.get_submodule(names[id(module)])

    for site in (s for s in sites if s.block is None):
        layer, equations = site.consumer, _Equations(site, masks)
        for run in runs:
            with holding(gated, masks):
                heard = _until(layer, gated, run).args[0]
            equations.add(heard, twin(layer)(_until(twin(layer), teacher, run).args[0]))
        equations.solve(damping)
    layers = _stack(gated)
    if layers is None:
        return
    with holding(gated, masks):
        ours = [_until(layers[0], gated, run) for run in runs]
    theirs = [_until(twin(layers[0]), teacher, run) for run in runs]
    with _acting(gated, masks):
        for index, layer in enumerate(layers):
            members = [s for s in sites if s.block == index]
            _refit_block(
                layer, twin(layer), _branches(gated, members), ours, theirs, masks, damping
            )
            ours = [call.passed_on(layer) for call in ours]
            theirs = [call.passed_on(twin(layer)) for call in theirs]
            logger.info(
                "refit: block %d of %d: %.4f of the stream's power is lost",
                index + 1,
                len(layers),
                _lost(ours, theirs),
            )
    with holding(gated, masks):
        _check_chain(layers, ours[0], gated, runs[0])


def _check_readers(sites: Iterable[object]) -> None:
    """ModelError for layers whose equations aren't known."""
    read: dict[int, str] = {}
    for site in sites:
        if not isinstance(site, ConsumedSite):
            continue
        layer, other = site.consumer, read.setdefault(id(site.consumer), site.name)
        wide = isinstance(layer, nn.Conv1d) and layer.kernel_size[0] > 1
        if wide or other != site.name:
            what = "several frames at a time" if wide else f"together with those of {other}"
            raise ModelError(
                f"refit: {site.name}: its units are read {what}, for which refitting isn't known "
                "yet; leave the method's key `refit` out"
            )


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
    for site in gated.site_map.of_kinds((BRANCH,)):
        if not site.name.startswith(DECODER):
            for module in gated.model.modules():
                if isinstance(module, (nn.ModuleList, nn.Sequential)) and any(
                    m is site.layer for m in module
                ):
                    return module
    return None


class _Reached(Exception):
    """Ends a pass where nothing further is needed of it."""


@dataclass(frozen=True)
class _Call:
    """What a module was called with; the residual stream comes first."""

    args: tuple
    keywords: Mapping[str, object]

    @property
    def stream(self) -> Tensor:
        return first_tensor(self.args[0])

    def passed_on(self, layer: nn.Module) -> "_Call":
        """The same for the next block, of what ``layer`` makes of it."""
        made = layer(*self.args, **self.keywords)
        made = made[0] if isinstance(made, tuple) else made
        return _Call((made, *self.args[1:]), self.keywords)


def _until(module: nn.Module, model: nn.Module, run: Run) -> _Call:
    """What ``module`` is called with in a pass of ``model``, which ends there."""
    found: list[_Call] = []

    def keep(_: nn.Module, args: tuple, keywords: dict) -> None:
        found.append(_Call(args, keywords))
        raise _Reached

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        run(model)
    except _Reached:
        return found[0]
    finally:
        handle.remove()
    raise ModelError(
        f"refit: {type(module).__name__}: no pass of {type(model).__name__} reaches it"
    )


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
    ours: Sequence[_Call],
    theirs: Sequence[_Call],
    masks: Mapping[str, Tensor],
    damping: float,
) -> None:
    """Solves one block's sites in the order in which they are run."""
    names = {id(module): name for name, module in layer.named_modules()}
    consumers = {site.name: names[id(site.consumer)] for site, _ in branches}
    watched = [*consumers.values(), *(norm for _, norm in branches if norm)]
    said = [_watch(twin, watched, call) for call in theirs]
    order = list(said[0].inputs)
    for site, norm in sorted(branches, key=lambda b: order.index(consumers[b[0].name])):
        name, equations = consumers[site.name], _Equations(site, masks)
        share = getattr(site, "share", 1.0)
        scale = getattr(layer, "ff_scale", share) if site.kind == FEED_FORWARD_UNIT else 1.0
        for call, wanted in zip(ours, said, strict=True):
            heard = _heard(layer, name, norm, call)
            target = wanted.outputs[name]
            if norm:
                target = target + _like(target, wanted.inputs[norm] - heard[norm]) / scale
            equations.add(heard[name], target)
        equations.solve(damping)


def _heard(layer: nn.Module, name: str, norm: str | None, call: _Call) -> dict[str, Tensor]:
    """Inputs of a layer and of the norm before it, by name; the pass ends there."""
    seen: dict[str, Tensor] = {}

    def keep(_: nn.Module, inputs: tuple) -> None:
        seen[norm] = inputs[0]

    with ExitStack() as stack:
        if norm:
            handle = layer.get_submodule(norm).register_forward_pre_hook(keep)
            stack.callback(handle.remove)
        run = partial(_called, call)
        seen[name] = _until(layer.get_submodule(name), layer, run).args[0]
    return seen


def _called(call: _Call, layer: nn.Module) -> object:
    return layer(*call.args, **call.keywords)


def _like(target: Tensor, stream: Tensor) -> Tensor:
    """The stream (B, T, D) in the layout of a layer's output."""
    return stream if stream.shape == target.shape else stream.transpose(1, 2)


@dataclass(frozen=True)
class _Watched:
    """Inputs and outputs by name of module, in the order in which they were run."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def _watch(layer: nn.Module, names: Sequence[str], call: _Call) -> _Watched:
    seen = _Watched({}, {})

    def keep(name: str):
        def hook(_: nn.Module, inputs: tuple, output: Tensor) -> None:
            seen.inputs[name], seen.outputs[name] = inputs[0], output

        return hook

    with ExitStack() as stack:
        for name in names:
            handle = layer.get_submodule(name).register_forward_hook(keep(name))
            stack.callback(handle.remove)
        layer(*call.args, **call.keywords)
    return seen


class _Equations:
    """The normal equations of the layer that reads a site's kept units, bias included."""

    def __init__(self, site: ConsumedSite, masks: Mapping[str, Tensor]) -> None:
        self.site = site
        mask = masks[site.name].to(site.consumer.weight.device)
        units = mask.nonzero()[:, 0]
        self.columns = columns_of(site, units)
        self.values = mask[units].double().repeat_interleave(len(self.columns) // len(units))
        self.own: Tensor | float = 0.0
        self.cross: Tensor | float = 0.0

    def add(self, heard: Tensor, wanted: Tensor) -> None:
        """One utterance: what the layer hears, and what it should say."""
        layer = self.site.consumer
        rows, targets = rows_of(layer, heard), _outputs(layer, wanted)
        step = -(-len(rows) // POSITIONS) if isinstance(layer, nn.Conv2d) else 1
        rows, targets = rows[::step, self.columns].double(), targets[::step].double()
        if layer.bias is not None:
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        self.own = self.own + rows.T @ rows
        self.cross = self.cross + rows.T @ targets

    def solve(self, damping: float) -> None:
        """Writes the solution into the layer; its other columns stay."""
        layer, number = self.site.consumer, len(self.columns)
        before = weight_of(self.site)[self.columns] * self.values[:, None]
        if layer.bias is not None:
            before = torch.cat([before, layer.bias.detach().double()[None]])
        ridge = torch.zeros_like(self.own.diagonal())
        ridge[:number] = damping * self.own.diagonal()[:number].mean().clamp_min(1e-12)
        found = torch.linalg.solve(
            self.own + torch.diag(ridge), self.cross + ridge[:, None] * before
        )
        flat = layer.weight.detach().view(len(layer.weight), -1)  # the model changes with it
        flat[:, self.columns] = (found[:number] / self.values[:, None]).T.to(flat)
        if layer.bias is not None:
            layer.bias.copy_(found[-1])


def _outputs(layer: nn.Module, said: Tensor) -> Tensor:
    """What it says at each position: (positions, outputs)."""
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        said = said.movedim(1, -1)
    return said.reshape(-1, said.shape[-1])


def _lost(ours: Sequence[_Call], theirs: Sequence[_Call]) -> float:
    pairs = list(zip(ours, theirs, strict=True))
    gap = sum(float((a.stream - b.stream).square().sum()) for a, b in pairs)
    return gap / max(sum(float(b.stream.square().sum()) for _, b in pairs), 1e-12)


def _check_chain(layers: Sequence[nn.Module], last: _Call, gated: GatedModel, run: Run) -> None:
    """ModelError unless a whole pass gives what the blocks gave one after the other."""
    found: list[Tensor] = []
    handle = layers[-1].register_forward_hook(
        lambda _, inputs, output: found.append(first_tensor(output))
    )
    try:
        run(gated)
    finally:
        handle.remove()
    gap = float((found[0] - last.stream).abs().max())
    if gap > CHAIN_TOLERANCE * float(found[0].abs().max()):
        raise ModelError(
            f"refit: the blocks of {type(gated.site_map.encoder).__name__} don't simply follow "
            "each other, so that they can't be solved one by one; leave `refit` out for this model"
        )
