"""What a site is: a place in a model that holds units of one kind.

Only the site knows its weights: how a mask acts on them and how they are cut. Its costs are
``CostTerm``s, monomials in the numbers of kept units, so that coupled sites (two front-end
convolutions in a row) are counted exactly.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import BLOCK, BRANCH, CostTerm
from espnet_prune.errors import ModelError
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

    ``reader`` names the site that alone reads its units, where there is one; ``lender`` is the one
    whose weights it shares.

    Args:
        name: its name, such as ``block.3.attention.heads``.
        kind: one of ``KINDS``.
        units: number of units.
        block: index of its block, None for the front-end.
        parent: the branch or block that contains it, None at the top.
    """

    reader: str | None = None
    lender: "Site | None" = None

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

    def made_by(self) -> list[Tensor]:
        """Views of the parameters that make the units, each with the units as first dimension."""
        return []

    def statistics(self) -> list[Tensor]:
        """Views of norms' statistics of the units, each with the units as first dimension."""
        return []

    def unit_rows(self) -> list[Tensor]:
        """All that makes the units; to write into one of the views changes the model."""
        return [*self.made_by(), *self.statistics()]

    def mean_squares(self) -> Tensor:
        """Mean square of each unit's weights, shape (units,), differentiable."""
        weights = [w.reshape(self.units, -1) for w in self.unit_weights()]
        total = sum(w.pow(2).sum(dim=1) for w in weights)
        return total / sum(w.shape[1] for w in weights)


class ConsumedSite(Site):
    """A site whose mask scales the weight columns of the layer that reads its units.

    Args:
        consumer: the layer that reads the units, and nothing else unless ``first`` says so.
        width: how many of the consumer's inputs one unit feeds (d_k for a head).
    """

    @property
    def first(self) -> int:
        """The first of the consumer's inputs that the units feed."""
        return 0

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

    def unit_parameters(self) -> int:
        """How many parameters one unit has: what makes it, and its columns where it is read."""
        made = sum(tensor[0].numel() for tensor in self.made_by())
        return made + self.width * self.consumer.weight[:, 0].numel()

    def spread(self, per_unit: Tensor) -> Tensor:
        """(units,) -> (units * width,), each value repeated for the unit's inputs."""
        return per_unit.repeat_interleave(self.width) if self.width > 1 else per_unit

    def columns(self, kept: Tensor) -> Tensor:
        """Indices of the consumer's inputs that belong to the units ``kept``."""
        offsets = torch.arange(self.first, self.first + self.width)
        return (kept[:, None] * self.width + offsets[None, :]).reshape(-1)

    def read_weights(self) -> Tensor:
        """The consumer's columns that read the units, (units * width, ...)."""
        columns = self.columns(torch.arange(self.units)).to(self.consumer.weight.device)
        return self.consumer.weight[:, columns].transpose(0, 1)

    def cut_consumer(self, kept: Tensor, values: Tensor) -> None:
        """Keeps the consumer's columns of ``kept``, scaled by ``values`` (kept,)."""
        masked.keep_inputs(self.consumer, self.columns(kept), self.spread(values))


def read_once(site: Site) -> ConsumedSite:
    """The site, if one layer alone reads its units.

    Raises:
        ModelError: two do, as of a recurrent layer.
    """
    if not isinstance(site, ConsumedSite):
        raise ModelError(
            f"{site.name}: two layers read its units, for which this method isn't known; leave the "
            "method's key `decoder` out, or choose one of magnitudes or learned masks"
        )
    return site


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
        return [p.weight for p in self.projections] + [self.read_weights()]

    def made_by(self) -> list[Tensor]:
        made_by = [t for p in self.projections for t in (p.weight, p.bias) if t is not None]
        return [tensor.detach().view(self.units, -1) for tensor in made_by]

    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Cuts the consumer's columns, then the projections' rows."""
        self.cut_consumer(kept, values)
        for projection in self.projections:
            masked.keep_outputs(projection, self.columns(kept))


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
        """Takes out what the layer belongs to."""


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

    def joined_with(self, other: "SiteMap") -> "SiteMap":
        """Both as one; what the other masks runs on its own, and is masked then too."""
        return SiteMap(
            {**self.sites, **other.sites},
            [*self.terms, *other.terms],
            self.encoder,
            self.reference_seconds,
            entries=(*self.entries, other.encoder, *other.entries),
        )

    def of_kinds(self, kinds: Sequence[str]) -> list[Site]:
        """The sites whose kind is among ``kinds``, in order."""
        return [site for site in self.sites.values() if site.kind in kinds]
