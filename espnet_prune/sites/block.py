"""Whole blocks: masked by mixing what a block gives with what it got, cut by taking it out."""

from collections.abc import Callable

from torch import Tensor, nn

from espnet_prune.budget.structure import BLOCK
from espnet_prune.sites.base import Site

# (z, inputs, output) -> the output with z y + (1 - z) x in it
Mix = Callable[[Tensor, tuple, tuple], tuple]


class BlockSite(Site):
    """One whole block, a site of one unit whose hard mask is exactly 0 or 1.

    Args:
        name: its name.
        block: its index.
        stack: the container that the cut takes it out of.
        layer: the block itself.
        mix: how a mask acts on what it returns.
    """

    def __init__(self, name: str, block: int, stack: nn.Module, layer: nn.Module, mix: Mix) -> None:
        super().__init__(name, BLOCK, 1, block)
        self.stack = stack
        self.layer = layer
        self.gate = _BlockGate(mix)
        self.handle = None

    def attach(self) -> None:
        if self.handle is None:
            # before those that transformers keeps hidden states by
            self.handle = self.layer.register_forward_hook(self.gate, prepend=True)

    def apply(self, mask: Tensor) -> None:
        self.gate.mask = mask

    def clear(self) -> None:
        self.gate.mask = None

    def detach(self) -> None:
        if self.handle is not None:
            self.handle.remove()
            self.handle = None

    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Takes the block out unless it stays."""
        if len(kept):
            return
        for index, layer in enumerate(self.stack):
            if layer is self.layer:
                del self.stack[index]
                return


class _BlockGate:
    """A forward hook that mixes a block's output with its input."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self.mask: Tensor | None = None

    def __call__(self, layer: nn.Module, inputs: tuple, output: tuple) -> tuple | None:
        return None if self.mask is None else self.mix(self.mask[0], inputs, output)
