"""A stack of blocks run one after the other: what each is called with, hears and says."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.surgery.inputs import first_tensor

CHAIN_TOLERANCE = 1e-3  # of the stream's largest value: block by block, or in one pass


@dataclass(frozen=True)
class Call:
    """What a module was called with; the residual stream comes first."""

    args: tuple
    keywords: Mapping[str, object]

    @property
    def stream(self) -> Tensor:
        return first_tensor(self.args[0])

    def on(self, layer: nn.Module) -> object:
        """What ``layer`` makes of it."""
        return layer(*self.args, **self.keywords)

    def passed_on(self, layer: nn.Module) -> "Call":
        """The same for the next block, of what ``layer`` makes of it."""
        made = self.on(layer)
        made = made[0] if isinstance(made, tuple) else made
        return Call((made, *self.args[1:]), self.keywords)


@dataclass(frozen=True)
class Watched:
    """Inputs and outputs by name of module, in the order in which they were run."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class _Reached(Exception):
    """Ends a pass where nothing further is needed of it."""


def until(module: nn.Module, run: Callable[[], object]) -> Call:
    """What ``module`` is called with in a pass, which ends there.

    Raises:
        ModelError: the pass doesn't reach it.
    """
    found: list[Call] = []

    def keep(_: nn.Module, args: tuple, keywords: dict) -> None:
        found.append(Call(args, keywords))
        raise _Reached

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        run()
    except _Reached:
        return found[0]
    finally:
        handle.remove()
    raise ModelError(f"{type(module).__name__}: no pass of the model reaches it")


def watch_call(layer: nn.Module, names: Sequence[str], call: Call) -> Watched:
    """What the modules ``names`` of a block hear and say in one call of it."""
    seen = Watched({}, {})

    def keep(name: str):
        def hook(_: nn.Module, inputs: tuple, output: Tensor) -> None:
            seen.inputs[name], seen.outputs[name] = inputs[0], output

        return hook

    with ExitStack() as stack:
        for name in names:
            handle = layer.get_submodule(name).register_forward_hook(keep(name))
            stack.callback(handle.remove)
        call.on(layer)
    return seen


def stack_with(model: nn.Module, part: nn.Module) -> Sequence[nn.Module] | None:
    """The blocks in order, one of which is ``part`` or holds it; the outermost such list."""
    for module in model.modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and any(
            part is inner for block in module for inner in block.modules()
        ):
            return module
    return None


def lost(ours: Sequence[Call], theirs: Sequence[Call]) -> float:
    """Share of the stream's power that is lost."""
    pairs = list(zip(ours, theirs, strict=True))
    gap = sum(float((a.stream - b.stream).square().sum()) for a, b in pairs)
    return gap / max(sum(float(b.stream.square().sum()) for _, b in pairs), 1e-12)


def check_chain(layers: Sequence[nn.Module], last: Call, run: Callable[[], object]) -> None:
    """ModelError unless a whole pass gives what the blocks gave one after the other."""
    found: list[Tensor] = []
    handle = layers[-1].register_forward_hook(
        lambda _, inputs, output: found.append(first_tensor(output))
    )
    try:
        run()
    finally:
        handle.remove()
    gap = float((found[0] - last.stream).abs().max())
    if gap > CHAIN_TOLERANCE * float(found[0].abs().max()):
        raise ModelError(
            f"blocks {type(layers[0]).__name__} don't simply follow each other, so that they can't "
            "be solved one by one; leave `refit` out for this model, or choose a method without it"
        )
