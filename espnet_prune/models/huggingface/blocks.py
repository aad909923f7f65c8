"""Blocks of transformers' encoders: their parts, the sites of these, and what they cost.

Found by attributes; nothing of transformers is imported. A part is a residual branch as in
``models.espnet.parts``. Where a block normalises before a branch, the norm goes with it; where the
norm acts on the sum of branch and residual, it stays.
"""

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.parts import Part, Place, multiplied, plain_part
from espnet_prune.models.espnet.stack import block_sites, counted
from espnet_prune.sites import Site, SiteMap, count_parameters
from espnet_prune.sites.attention import AttentionNames, HeadSite
from espnet_prune.sites.base import ConsumedSite, LinearSite
from espnet_prune.sites.block import BlockSite
from espnet_prune.sites.branch import BranchSite, GoneBranch
from espnet_prune.sites.convolution import ConvolutionSite
from espnet_prune.sites.feed_forward import FeedForwardSite
from espnet_prune.sites.unfit import refuse_float16, refuse_tied
from espnet_prune.sites.weights import Matrix

ALREADY_CUT = "a model that is already cut can't be gated"


class GoneAttention(nn.Module):
    """Stands where attention was: adds nothing."""

    def forward(self, hidden_states: Tensor, **unused) -> tuple[Tensor, None]:
        """(B, T, D) -> zeros (B, T, D), and no attention weights."""
        return torch.zeros_like(hidden_states), None


class GoneCachedAttention(GoneAttention):
    """The same where keys and values are cached.

    transformers reads the number of tokens decoded so far off the cached keys of the first layer's
    self-attention. Where that one is gone, a single 0 a token stands for its keys and values.

    Args:
        layer_idx: index of the layer's entries in the cache, by transformers' own name.
    """

    def __init__(self, layer_idx: int | None) -> None:
        super().__init__()
        self.layer_idx = layer_idx

    def forward(
        self, hidden_states: Tensor, key_value_states=None, past_key_values=None, **unused
    ) -> tuple[Tensor, None]:
        """(B, T, D) -> zeros (B, T, D), and no attention weights."""
        if past_key_values is not None and key_value_states is None:
            cache = getattr(past_key_values, "self_attention_cache", past_key_values)
            batch, tokens = hidden_states.shape[:2]
            marks = hidden_states.new_zeros(batch, 1, tokens, 1)
            cache.update(marks, marks, self.layer_idx)
        return torch.zeros_like(hidden_states), None


class StackedBlockSite(BlockSite):
    """A block of an encoder with a decoder; those behind it get its place in the cache.

    All of its branches are gone when it goes. Where it is the last one left of its stack, it stays
    without them: it adds nothing, and a decoder's still counts the tokens.
    """

    def cut(self, kept: Tensor, values: Tensor) -> None:
        if len(self.stack) > 1:
            super().cut(kept, values)
        for index, layer in enumerate(self.stack):
            for part in layer.children():
                if getattr(part, "layer_idx", None) is not None:
                    part.layer_idx = index


class ConfiguredHeadSite(HeadSite):
    """Heads of attention that asks its configuration for their number: it gets one of its own."""

    def cut(self, kept: Tensor, values: Tensor) -> None:
        super().cut(kept, values)
        config = copy.copy(self.attention.config)
        config.num_attention_heads = config.num_key_value_heads = len(kept)
        self.attention.config = config


def refuse_shared_keys(attention: nn.Module, name: str) -> None:
    """ModelError where several heads share their keys and values."""
    if attention.num_key_value_groups != 1:
        raise ModelError(
            f"{name}: num_key_value_heads: heads that share keys and values can't be pruned; "
            "expected as many as num_attention_heads"
        )


@dataclass(frozen=True)
class BlockKind:
    """One kind of block: its branches, and what makes the sites of each.

    Attributes:
        branches: by name, in the order in which they are cut: attributes of the part and of its
            norm, which is None where it stays, and what makes the sites.
        matrices: attributes of the parts whose matrices may lose single weights, and those of the
            matrices; a name that a part doesn't have is left out.
    """

    branches: Mapping[str, tuple[str, str | None, Callable[[Place], Part]]]
    matrices: Mapping[str, Sequence[str]]

    def parts(
        self, layer: nn.Module, index: int, positions: int, block: str | None
    ) -> tuple[list[Part], list[CostTerm]]:
        """The parts of a block, for ``block_sites``."""
        places = (
            (Place(layer, index, attribute, norm, branch, positions, block), make)
            for branch, (attribute, norm, make) in self.branches.items()
        )
        return [make(place) for place, make in places], []


def attention_part(
    place: Place,
    names: AttentionNames,
    table: int = 0,
    looked: int = 0,
    site: type[HeadSite] = HeadSite,
    gone: nn.Module | None = None,
) -> Part:
    """Self-attention: its heads.

    Args:
        place: where it stands.
        names: names of its parts.
        table: rows of a table of positions that one of its layers reads.
        looked: rows of positions that every query is multiplied with.
        site: the kind of site.
        gone: what stands for it once it is gone.
    """
    heads = site(place.module, names, place.block, place.name)
    frames, inputs = place.positions, getattr(place.module, names.inputs[0]).in_features
    projected = (3 * frames + table) * inputs + frames * heads.consumer.out_features
    macs = (projected + (2 * frames + looked) * frames) * heads.width
    return plain_part(place, heads, macs, gone or GoneAttention())


def feed_forward_part(place: Place, first: str, second: str, share: float = 1.0) -> Part:
    """A feed-forward part: its hidden units.

    Args:
        place: where it stands.
        first: attribute of the layer that makes them.
        second: of the one that reads them.
        share: how much of what they give is added to the residual stream.
    """
    layers = getattr(place.module, first), getattr(place.module, second)
    units = FeedForwardSite(*layers, place.block, place.name, share)
    macs = place.positions * (layers[0].in_features + layers[1].out_features)
    return plain_part(place, units, macs, GoneBranch())


def convolution_part(place: Place, norm: str) -> Part:
    """A convolution module: its channels.

    Args:
        place: where it stands.
        norm: attribute of the norm behind the depthwise convolution.
    """
    channels = ConvolutionSite(place.module, place.block, place.name, norm)
    return plain_part(place, channels, multiplied(channels) * place.positions, GoneBranch())


def check_blocks(layers: nn.ModuleList, kinds: Mapping[str, BlockKind], number: int) -> BlockKind:
    """The kind of a model's blocks, all of them whole.

    Args:
        layers: the blocks.
        kinds: those that are known, by class.
        number: how many the model had when it was made.

    Raises:
        ModelError: another kind, or one already cut.
    """
    for index, layer in enumerate(layers):
        found = type(layer).__name__
        if found not in kinds:
            raise ModelError(
                f"block {index} is a {found}, whose cutting rules aren't known; expected one of "
                f"{', '.join(kinds)}"
            )
        if getattr(layer, "adapter_layer", None) is not None:
            raise ModelError(f"block {index}: adapter layers can't be pruned; no adapter_attn_dim")
        for attribute, *_ in kinds[found].branches.values():
            if isinstance(getattr(layer, attribute), (GoneAttention, GoneBranch)):
                raise ModelError(f"block {index}: {ALREADY_CUT}")
    refuse_fewer(layers, number)
    return kinds[type(layers[0]).__name__]


def refuse_fewer(layers: nn.ModuleList, number: int) -> None:
    """ModelError where blocks are gone of the ``number`` that there were."""
    if len(layers) != number:
        raise ModelError(f"{len(layers)} blocks of {number}: {ALREADY_CUT}")


def encoder_sites(
    model: nn.Module,
    layers: nn.ModuleList,
    kind: BlockKind,
    front: tuple[Sequence[Site], Sequence[CostTerm]],
    positions: int,
    reference_seconds: float,
    macs_beside: int,
    staying: Collection[int] = (),
) -> SiteMap:
    """All sites of an encoder and what they cost.

    Args:
        model: the encoder with its front-end, whose forward is masked.
        layers: its blocks.
        kind: theirs.
        front: sites of the front-end, and what these cost.
        positions: frames of the reference utterance in the blocks.
        reference_seconds: length of the utterance that MACs are counted for.
        macs_beside: MACs of what nothing is cut of.
        staying: indices of blocks that can't go.

    Raises:
        ModelError: one already cut, float16, or a matrix that is tied to another.
    """
    refuse_float16(model)
    if getattr(model, "adapter", None) is not None:
        raise ModelError("add_adapter: true can't be pruned; choose a model without adapter")

    def site_of(index: int) -> Site | None:
        name = f"block.{index}"
        stays = index in staying
        return None if stays else BlockSite(name, index, layers, layers[index], mixed)

    inside, of_blocks = block_sites(layers, kind.parts, positions, site_of)
    sites = [*front[0], *inside]
    _refuse_cut(sites, model.config)
    refuse_tied(model, sites)
    terms = [*front[1], *of_blocks]
    rest = count_parameters(model) - counted(terms, {site.name: site.units for site in sites})
    terms.append(CostTerm(rest, macs_beside, ()))
    return SiteMap({site.name: site for site in sites}, terms, model, reference_seconds)


def _refuse_cut(sites: Sequence[Site], config) -> None:
    """ModelError where a part has other units than the configuration says."""
    whole = {"heads": config.num_attention_heads, "units": config.intermediate_size}
    for site in sites:
        what = site.name.rpartition(".")[2]
        if site.block is not None and site.units != whole.get(what, site.units):
            raise ModelError(f"block {site.block}: {ALREADY_CUT}")


def mixed(z: Tensor, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
    """A block's output y becomes z y + (1 - z) x; what it hands on besides passes."""
    before, after = inputs[0], output[0] if isinstance(output, tuple) else output
    z = z.to(after.dtype)
    stream = z * after + (1 - z) * before
    return (stream, *output[1:]) if isinstance(output, tuple) else stream


def stacked_layers(model: nn.Module) -> Iterator[tuple[str, int, nn.Module]]:
    """Name, block and module of each layer; the decoder's blocks count on from the encoder's.

    Args:
        model: an encoder with a decoder, both in ``model.model``.
    """
    block = 0
    for stack in ("encoder", "decoder"):
        for index, layer in enumerate(getattr(model.model, stack).layers):
            yield f"{stack}.block.{index}", block, layer
            block += 1


def stacks(model: nn.Module) -> tuple[nn.Module, ...]:
    """The parts that are run on their own: by ``generate``, and as parts of an ESPnet model."""
    return model.model.encoder, model.model.decoder


def head_macs(site: LinearSite, size: int, positions: int, tokens: int, padding: int = 0) -> int:
    """MACs of one head of an encoder with a decoder, by greedy decoding with a cache.

    Args:
        site: its heads, named by stack and branch.
        size: width of the residual stream.
        positions: frames in the encoder.
        tokens: tokens that the decoder makes.
        padding: zeros that a head is filled up with where it attends.
    """
    if "cross_attention" in site.name:
        projected, pairs = 2 * tokens + 2 * positions, tokens * positions
    elif site.name.startswith("decoder"):  # each token attends to itself and to those before
        projected, pairs = 4 * tokens, tokens * (tokens + 1) // 2
    else:
        projected, pairs = 4 * positions, positions**2
    return projected * size * site.width + 2 * pairs * (site.width + padding)


def seq2seq_sites(
    model: nn.Module,
    front: tuple[Sequence[ConsumedSite], Sequence[CostTerm]],
    branches: Iterable[tuple[LinearSite, BranchSite, int]],
    macs_of: Callable[[LinearSite], int],
    macs_beside: int,
    reference_seconds: float,
) -> SiteMap:
    """All sites of an encoder with a decoder and what they cost; both are masked together.

    Args:
        model: it; all that a block has belongs to one of its branches.
        front: sites of the front-end, and what these cost.
        branches: the site of each branch's units, that of the branch, and parameters that the
            latter has beside its units, such as those of its norm.
        macs_of: MACs of one unit of a branch.
        macs_beside: MACs of what nothing is cut of.
        reference_seconds: length of the utterance that MACs are counted for.

    Raises:
        ModelError: a matrix that is tied to another.
    """
    found = list(branches)
    inside = [units for units, *_ in found]
    units = [*front[0], *inside]
    terms = [CostTerm(site.unit_parameters(), macs_of(site), (site.name,)) for site in inside]
    terms += front[1]
    terms += [CostTerm(beside, 0, (branch.name,)) for _, branch, beside in found]
    blocks = [
        StackedBlockSite(
            name, block, getattr(model.model, name.partition(".")[0]).layers, layer, mixed
        )
        for name, block, layer in stacked_layers(model)
    ]
    refuse_tied(model, units)
    sites = {site.name: site for site in (*units, *(branch for _, branch, _ in found), *blocks)}
    rest = count_parameters(model) - counted(terms, {site.name: site.units for site in units})
    terms.append(CostTerm(rest, macs_beside, ()))
    return SiteMap(sites, terms, model, reference_seconds, stacks(model))


def block_matrices(layers: nn.ModuleList, kind: BlockKind) -> list[Matrix]:
    """The matrices of the blocks' attention and feed-forward parts."""
    return [
        (f"block.{index}.{part}.{name}", index, getattr(getattr(layer, part), name))
        for index, layer in enumerate(layers)
        for part, names in kind.matrices.items()
        for name in names
        if hasattr(getattr(layer, part), name)
    ]
