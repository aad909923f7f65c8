"""Parts of the blocks of ESPnet's encoders: attention, feed-forward, convolution, and their sites.

Found by attributes; nothing of ESPnet is imported. A part is a residual branch of its block, with
the sites of its units and what they cost; ``models.espnet.stack`` puts an encoder together from
them. A further kind of part is added to one of the tables here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.sites import Site, count_parameters
from espnet_prune.sites.attention import ESPNET, ESPNET_RELATIVE, AttentionNames, HeadSite
from espnet_prune.sites.base import ConsumedSite
from espnet_prune.sites.branch import BranchSite, GoneBranch
from espnet_prune.sites.convolution import ConvolutionSite
from espnet_prune.sites.feed_forward import FeedForwardSite
from espnet_prune.sites.gating_mlp import GatingSite
from espnet_prune.sites.merge import MergedBranchSite, MergedChannelSite, NoChannels

HERE = "One is added in espnet_prune/models/espnet/parts.py"
# classes of attention: names of their parts, and how many positions their table has for T frames
ATTENTIONS: dict[str, tuple[AttentionNames, Callable[[int], int]]] = {
    "MultiHeadedAttention": (ESPNET, lambda frames: 0),
    "LegacyRelPositionMultiHeadedAttention": (ESPNET_RELATIVE, lambda frames: frames),
    "RelPositionMultiHeadedAttention": (ESPNET_RELATIVE, lambda frames: 2 * frames - 1),
}
CROSS_ATTENTIONS = ("MultiHeadedAttention",)
FEED_FORWARDS = ("PositionwiseFeedForward", "MultiLayeredConv1d", "Conv1dLinear")
CONVOLUTIONS = ("ConvolutionModule", "MultiConvolutionalGatingMLP")
GATING_MLPS = ("ConvolutionalGatingMLP",)


@dataclass(frozen=True)
class Part:
    """One residual branch of a block.

    Attributes:
        units: the sites of its units, in the order in which they are cut.
        branch: the site of the branch.
        terms: what its units cost.
        modules: all that goes with the branch.
    """

    units: Sequence[ConsumedSite]
    branch: Site
    terms: Sequence[CostTerm]
    modules: Sequence[nn.Module] = field(default=())

    def all_terms(self) -> list[CostTerm]:
        """The costs of the units, and what the branch has besides."""
        numbers = {site.name: site.units for site in self.units}
        rest = sum(map(count_parameters, self.modules)) - _counted(self.terms, numbers)
        return [*self.terms, CostTerm(rest, 0, (self.branch.name,))]


def _counted(terms: Sequence[CostTerm], numbers: dict[str, int]) -> int:
    total = 0
    for term in terms:
        size = term.parameters
        for name in term.factors:
            size *= numbers[name]
        total += size
    return total


@dataclass(frozen=True)
class Place:
    """Where a part stands.

    Attributes:
        layer: the block.
        block: its index.
        attribute: the block's attribute that is the part.
        norm: attribute of the block, the part's own norm, which goes with it; None where it acts
            on the sum of branch and residual, and stays.
        branch: what the branch is called, such as ``attention``.
        positions: frames of the reference utterance in the encoder.
        parent: name of the block's site, where the block can go.
    """

    layer: nn.Module
    block: int
    attribute: str
    norm: str | None
    branch: str
    positions: int
    parent: str | None

    @property
    def name(self) -> str:
        """Name of the branch's site."""
        return f"block.{self.block}.{self.branch}"

    @property
    def module(self) -> nn.Module:
        """The part itself."""
        return getattr(self.layer, self.attribute)

    def check(self, known: Sequence[str]) -> None:
        """ModelError unless the part is of a class that is known."""
        found = type(self.module).__name__
        if found not in known:
            raise ModelError(
                f"{type(self.layer).__name__} {self.block}: {self.attribute} is {found}, which "
                f"isn't known; known are {', '.join(known)}. {HERE}"
            )

    def without(self, gone: nn.Module | None) -> dict[str, object]:
        """Attributes of the block once the branch is gone."""
        return {self.attribute: gone} | ({} if self.norm is None else {self.norm: nn.Identity()})

    def modules(self) -> list[nn.Module]:
        """What goes with the branch."""
        return [self.module, *([] if self.norm is None else [getattr(self.layer, self.norm)])]


def is_there(part: nn.Module | None) -> bool:
    """Whether a block has a part: it was neither left out nor cut."""
    return part is not None and not isinstance(part, (GoneBranch, NoChannels))


def attention_part(place: Place) -> Part:
    """Self-attention: its heads.

    Raises:
        ModelError: a kind whose cutting rules aren't known.
    """
    place.check(tuple(ATTENTIONS))
    names, table = ATTENTIONS[type(place.module).__name__]
    heads = HeadSite(place.module, names, place.block, place.name)
    frames, distances = place.positions, table(place.positions)
    read, written = place.module.linear_q.in_features, heads.consumer.out_features
    projected = ((3 * frames + distances) * read + frames * written) * heads.width
    looked = (2 * frames + distances) * frames * heads.width
    return plain_part(place, heads, projected + looked, _gone(place))


def cross_attention_part(place: Place, read: int) -> Part:
    """Attention to a text: its heads.

    Args:
        place: where it stands.
        read: positions of that text.

    Raises:
        ModelError: a kind whose cutting rules aren't known.
    """
    place.check(CROSS_ATTENTIONS)
    heads = HeadSite(place.module, ESPNET, place.block, place.name)
    projected = 2 * (place.positions + read) * heads.consumer.out_features
    macs = (projected + 2 * place.positions * read) * heads.width
    return plain_part(place, heads, macs, _gone(place))


def feed_forward_part(place: Place) -> Part:
    """A feed-forward part, of linear layers or convolutions: its hidden units.

    Raises:
        ModelError: a kind whose cutting rules aren't known.
    """
    place.check(FEED_FORWARDS)
    module = place.module
    units = FeedForwardSite(module.w_1, module.w_2, place.block, place.name)
    return plain_part(place, units, multiplied(units) * place.positions, _gone(place))


def convolution_part(place: Place) -> Part:
    """A convolution module, or a gating MLP that stands for it: its channels.

    Raises:
        ModelError: a kind whose cutting rules aren't known.
    """
    place.check(CONVOLUTIONS)
    if hasattr(place.module, "csgu"):
        part = gating_part(place)
    else:
        norm = place.module.norm
        if not isinstance(norm, nn.BatchNorm1d):
            raise ModelError(
                f"{place.name}: its norm is {type(norm).__name__}, expected BatchNorm1d. {HERE}"
            )
        channels = ConvolutionSite(place.module, place.block, place.name)
        macs = multiplied(channels) * place.positions
        part = plain_part(place, channels, macs, _gone(place))
    part.branch.instead["_conv_takes_mask"] = False  # what stands for it takes anything
    return part


def gating_part(place: Place) -> Part:
    """A gating MLP: its channels."""
    channels = GatingSite(place.module, place.block, place.name)
    macs = multiplied(channels) * place.positions
    part = plain_part(place, channels, macs, _gone(place))
    return replace(part, terms=[*part.terms, *_mixing_terms(channels, place.positions)])


def merged_part(part: Part, place: Place, producer: nn.Linear, is_second: bool) -> Part:
    """A branch whose channels a projection merges with another's: these are units, too.

    Args:
        part: the branch by itself.
        place: where it stands.
        producer: its last layer, whose rows are the channels and whose columns the units.
        is_second: whether its channels stand behind those of the other branch.
    """
    (units,), frames = part.units, place.positions
    channels = MergedChannelSite(place.layer, producer, units, is_second)
    both = units.width  # weights of the producer for a unit and a channel
    own, *others = part.terms
    share = both * channels.units
    terms = [
        CostTerm(own.parameters - share, own.macs - share * frames, (units.name,)),
        *others,
        CostTerm(both, both * frames, (units.name, channels.name)),
        CostTerm(1, 0, (channels.name,)),  # the producer's bias
    ]
    branch = MergedBranchSite(
        place.name,
        place.block,
        place.layer,
        producer,
        place.without(NoChannels()),
        is_second,
        place.parent,
    )
    return replace(part, units=[units, channels], branch=branch, terms=terms)


def merging_terms(part: Part, positions: int) -> list[CostTerm]:
    """What the merged channels of a part cost in the block: the convolution's and projection's."""
    channels = next(site for site in part.units if isinstance(site, MergedChannelSite))
    fusion = 0 if channels.fusion is None else channels.fusion.weight[0].numel()
    multiplied = fusion + channels.consumer.out_features
    return [CostTerm(channels.unit_parameters(), multiplied * positions, (channels.name,))]


def _gone(place: Place) -> nn.Module | None:
    """What stands for a part that is gone; ESPnet's blocks do without a macaron."""
    return None if place.branch == "macaron" and place.norm is not None else GoneBranch()


def plain_part(place: Place, units: ConsumedSite, macs: int, gone: nn.Module | None) -> Part:
    """A branch whose last layer is the one that reads its units.

    Args:
        place: where it stands.
        units: their site.
        macs: of one unit.
        gone: what stands for the part once it is gone.
    """
    branch = BranchSite(
        place.name, place.block, units.consumer, place.layer, place.without(gone), place.parent
    )
    terms = [CostTerm(units.unit_parameters(), macs, (units.name,))]
    return Part([units], branch, terms, place.modules())


def multiplied(site: ConsumedSite) -> int:
    """Multiplications of one unit for each frame."""
    mixing = getattr(site, "mixing", ())
    each = (layer for layer in site.layers() if not any(layer is other for other in mixing))
    return sum(layer.weight.numel() for layer in each) // site.units


def _mixing_terms(site: GatingSite, positions: int) -> list[CostTerm]:
    """Costs of layers that read all channels: by pairs of units, or by units."""
    terms = []
    if site.linear is not None:
        pairs = site.width**2
        terms.append(CostTerm(pairs, pairs * positions, (site.name, site.name)))
    if site.chooser is not None:
        each = site.chooser.weight.numel() // site.units
        terms.append(CostTerm(each, each * positions, (site.name,)))
    return terms


def mixed(z: Tensor, inputs: tuple, output: tuple) -> tuple:
    """A block's output y becomes z y + (1 - z) x; positions and padding pass."""
    before, (after, *rest) = inputs[0], output
    z = z.to((after[0] if isinstance(after, tuple) else after).dtype)
    if isinstance(after, tuple):
        return (z * after[0] + (1 - z) * before[0], *after[1:]), *rest
    return z * after + (1 - z) * before, *rest
