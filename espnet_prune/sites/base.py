"""What a site is: a place in a model that holds units of one kind.

Only the site knows its weights: how a mask acts on them and how they are cut. Its costs are
``CostTerm``s, monomials in the numbers of kept units, so that coupled sites (two front-end
convolutions in a row) are counted exactly.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import BLOCK, BRANCH, CostTerm
from espnet_prune.sites import masked

HEAD = "head"
FEED_FORWARD_UNIT = "feed_forward_unit"
CONVOLUTION_CHANNEL = "convolution_channel"
FRONT_END_CHANNEL = "front_end_channel"
KINDS = (HEAD, FEED_FORWARD_UNIT, CONVOLUTION_CHANNEL, FRONT_END_CHANNEL, BRANCH, BLOCK)
UNIT_KINDS = KINDS[:4]


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, buffers not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


class Site(ABC):
    """A place in a model that holds units of one kind.

    ``reader`` names the site that alone reads its units, where there is one.

    Args:
        name: its name, such as ``block.3.attention.heads``.
        kind: one of ``KINDS``.
        units: number of units.
        block: index of its block, None for the front-end.
        parent: the branch or block that contains it, None at the top.
    """

    reader: str | None = None

    def __init__(
        self, name: str, kind: str, units: int, block: int | None = None, parent: str | None = None
    ) -> None:
        self.name = name
        self.kind = kind
        self.units = units
        self.block = block
        self.parent = parent

    @abstractmethod
    def attach(self) -> None:
        """Prepares the model for masks; all ones must leave its output bitwise the same."""

    @abstractmethod
    def apply(self, mask: Tensor) -> None:
        """Lets ``mask`` (units,) act from now on, until ``clear``."""

    @abstractmethod
    def clear(self) -> None:
        """Forgets the mask."""

    @abstractmethod
    def detach(self) -> None:
        """Undoes ``attach``."""

    @abstractmethod
    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Keeps the units ``kept`` (sorted indices) and folds in their mask ``values``."""

    def layers(self) -> list[nn.Module]:
        """Linear layers and convolutions whose weights the cut changes."""
        return []

    def unit_weights(self) -> list[Tensor]:
        """The site's weights, each with the units as first dimension, for magnitudes."""
        return []

    @torch.no_grad()
    def magnitudes(self) -> Tensor:
        """Root mean square of each unit's weights, shape (units,); comparable between kinds."""
        weights = [w.detach().reshape(self.units, -1).double() for w in self.unit_weights()]
        return torch.cat(weights, dim=1).pow(2).mean(dim=1).sqrt()

    def unit_rows(self) -> list[Tensor]:
        """Views of all that makes the units, each with the units as first dimension.

        Weights, biases and norm statistics; to write into one changes the model.
        """
        return []

    def mean_squares(self) -> Tensor:
        """Mean square of each unit's weights, shape (units,), differentiable."""
        weights = [w.reshape(self.units, -1) for w in self.unit_weights()]
        total = sum(w.pow(2).sum(dim=1) for w in weights)
        return total / sum(w.shape[1] for w in weights)


class ConsumedSite(Site):
    """A site whose mask scales the weight columns of the layer that reads its units.

    Args:
        consumer: the layer that reads the units.
        width: how many of the consumer's inputs one unit feeds (d_k for a head).
    """

    def __init__(self, *args, consumer: nn.Module, width: int = 1, **keywords) -> None:
        super().__init__(*args, **keywords)
        self.consumer = consumer
        self.width = width

    def attach(self) -> None:
        masked.attach(self.consumer)

    def apply(self, mask: Tensor) -> None:
        self.consumer.input_scale = self.spread(mask)

    def clear(self) -> None:
        if isinstance(self.consumer, masked._Masked):
            masked.clear(self.consumer)

    def detach(self) -> None:
        masked.detach(self.consumer)

    def layers(self) -> list[nn.Module]:
        return [self.consumer]

    def spread(self, per_unit: Tensor) -> Tensor:
        """(units,) -> (units * width,), each value repeated for the unit's inputs."""
        return per_unit.repeat_interleave(self.width) if self.width > 1 else per_unit

    def columns(self, kept: Tensor) -> Tensor:
        """Indices of the consumer's inputs that belong to the units ``kept``."""
        offsets = torch.arange(self.width)
        return (kept[:, None] * self.width + offsets[None, :]).reshape(-1)

    def cut_consumer(self, kept: Tensor, values: Tensor) -> None:
        """Keeps the consumer's columns of ``kept``, scaled by ``values`` (kept,)."""
        masked.keep_inputs(self.consumer, self.columns(kept), self.spread(values))


class LinearSite(ConsumedSite):
    """A site whose units are rows of some linear layers and columns of the one that reads them.

    Args:
        projections: the layers that make the units, ``width`` rows each.
    """

    def __init__(self, *args, projections: Sequence[nn.Linear], **keywords) -> None:
        super().__init__(*args, **keywords)
        self.projections = projections

    def layers(self) -> list[nn.Module]:
        return [*self.projections, self.consumer]

    def unit_weights(self) -> list[Tensor]:
        return [p.weight for p in self.projections] + [self.consumer.weight.T.contiguous()]

    def unit_rows(self) -> list[Tensor]:
        made_by = [t for p in self.projections for t in (p.weight, p.bias) if t is not None]
        return [tensor.detach().view(self.units, -1) for tensor in made_by]

    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Cuts the consumer's columns, then the projections' rows."""
        self.cut_consumer(kept, values)
        for projection in self.projections:
            masked.keep_outputs(projection, self.columns(kept))


class HeadSite(LinearSite):
    """Heads of one attention module, by transformers' names of its parts; subclasses have others.

    Args:
        attention: wav2vec 2.0's, HuBERT's or Whisper's.
        block: its block.
        branch: name of the branch that it is.

    Attributes:
        heads: attribute of the module with their number, which the cut changes.
        head_width: with a head's width d_k, which stays as it is.
        output: the layer that reads them.
        inputs: the layers that make them.
    """

    heads: ClassVar[str] = "num_heads"
    head_width: ClassVar[str] = "head_dim"
    output: ClassVar[str] = "out_proj"
    inputs: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj")

    def __init__(self, attention: nn.Module, block: int, branch: str) -> None:
        self.attention = attention
        super().__init__(
            f"{branch}.heads",
            HEAD,
            getattr(attention, self.heads),
            block,
            branch,
            consumer=getattr(attention, self.output),
            width=getattr(attention, self.head_width),
            projections=[getattr(attention, name) for name in self.inputs],
        )

    def cut(self, kept: Tensor, values: Tensor) -> None:
        super().cut(kept, values)
        setattr(self.attention, self.heads, len(kept))


class EspnetHeadSite(HeadSite):
    """Heads of one of ESPnet's MultiHeadedAttention modules."""

    heads = "h"
    head_width = "d_k"
    output = "linear_out"
    inputs = ("linear_q", "linear_k", "linear_v")


class GoneBranch(nn.Module):
    """Stands where a branch was: adds nothing, costs nothing."""

    def forward(self, x: Tensor, *unused, **ignored) -> Tensor:
        """(B, T, D) -> zeros (B, T, D)."""
        return torch.zeros_like(x)


class OutputSite(Site):
    """A site of one unit whose mask scales the output of its last layer, weight and bias.

    Args:
        last: that layer.
    """

    def __init__(self, *args, last: nn.Module, **keywords) -> None:
        super().__init__(*args, **keywords)
        self.last = last

    def attach(self) -> None:
        masked.attach(self.last)

    def apply(self, mask: Tensor) -> None:
        self.last.output_scale = mask[0]

    def clear(self) -> None:
        if isinstance(self.last, masked._Masked):
            masked.clear(self.last)

    def detach(self) -> None:
        masked.detach(self.last)

    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Folds the value in, or removes the branch."""
        if len(kept):
            masked.scale_output(self.last, values[0])
        else:
            self.remove()

    @abstractmethod
    def remove(self) -> None:
        """Puts a module there that adds nothing."""


class _BlockGate:
    """A forward hook that mixes a block's output with its input."""

    def __init__(self, mix: "Mix") -> None:
        self.mix = mix
        self.mask: Tensor | None = None

    def __call__(self, layer: nn.Module, inputs: tuple, output: tuple) -> tuple | None:
        return None if self.mask is None else self.mix(self.mask[0], inputs, output)


# (z, inputs, output) -> the output with z y + (1 - z) x in it
Mix = Callable[[Tensor, tuple, tuple], tuple]


class BlockSite(Site):
    """One whole block, a site of one unit whose hard mask is exactly 0 or 1.

    Args:
        name: its name.
        block: its index.
        layers: the container that the cut takes it out of.
        layer: the block itself.
        mix: how a mask acts on what it returns.
    """

    def __init__(
        self, name: str, block: int, layers: nn.Module, layer: nn.Module, mix: Mix
    ) -> None:
        super().__init__(name, BLOCK, 1, block)
        self.layers = layers
        self.layer = layer
        self.gate = _BlockGate(mix)
        self.handle = None

    def attach(self) -> None:
        if self.handle is None:
            self.handle = self.layer.register_forward_hook(self.gate)

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
        for index, layer in enumerate(self.layers):
            if layer is self.layer:
                del self.layers[index]
                return


@dataclass
class SiteMap:
    """All sites of a model, with the cost terms that count them.

    Attributes:
        sites: by name, in the order in which they are cut.
        terms: costs of everything that any of them can remove.
        encoder: the module whose forward is masked.
        reference_seconds: audio seconds of the utterance that MACs are counted for.
        entries: parts of it that are also run on their own, and are masked then too.
    """

    sites: dict[str, Site]
    terms: Sequence[CostTerm]
    encoder: nn.Module
    reference_seconds: float
    entries: Sequence[nn.Module] = ()
    children: Mapping[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.children = {name: [] for name in self.sites}
        for site in self.sites.values():
            if site.parent is not None:
                self.children[site.parent].append(site.name)

    def of_kinds(self, kinds: Sequence[str]) -> list[Site]:
        """The sites whose kind is among ``kinds``, in order."""
        return [site for site in self.sites.values() if site.kind in kinds]
