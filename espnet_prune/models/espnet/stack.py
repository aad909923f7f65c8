"""An encoder of ESPnet as a site map: front-end, blocks of parts, and what is around them."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.models.espnet.front_end import front_end_sites
from espnet_prune.models.espnet.parts import Part, mixed
from espnet_prune.sites import Site, SiteMap, count_parameters
from espnet_prune.sites.block import BlockSite, Mix
from espnet_prune.sites.unfit import refuse_float16, refuse_tied
from espnet_prune.sites.weights import Matrix
from espnet_prune.surgery.inputs import first_tensor

T = TypeVar("T")
# (block, its index, encoder positions, name of its site or None) -> its parts, and other costs
BlockParts = Callable[[nn.Module, int, int, str | None], tuple[list[Part], list[CostTerm]]]


class EncoderBlockSite(BlockSite):
    """A block of an encoder with intermediate CTC, whose places its cut counts anew.

    Args:
        encoder: ESPnet's.
        block: index of the block.
        mix: how a mask acts on what it returns.
    """

    def __init__(self, encoder: nn.Module, block: int, mix: Mix = mixed) -> None:
        layers = encoder.encoders
        super().__init__(f"block.{block}", block, layers, layers[block], mix)
        self.encoder = encoder

    def cut(self, kept: Tensor, values: Tensor) -> None:
        heard = getattr(self.encoder, "interctc_layer_idx", None)
        if heard and not len(kept):
            before = [layer is self.layer for layer in self.stack].index(True)
            self.encoder.interctc_layer_idx = [h - 1 if h > before else h for h in heard]
        super().cut(kept, values)


def encoder_site_map(
    encoder: nn.Module,
    parts_of: BlockParts,
    reference_seconds: float,
    frames_per_second: float,
    feature_bins: int | None,
    segments: Callable[[int], tuple[int, int]] = lambda positions: (positions, 1),
    mix: Mix = mixed,
    staying: Collection[int] = (),
) -> SiteMap:
    """All sites of an encoder and what they cost.

    A block to which intermediate CTC listens can't go: what it hears would be another block's.

    Args:
        encoder: has ``embed`` and ``encoders``; nothing in it is changed.
        parts_of: the parts of a block.
        reference_seconds: length of the utterance that MACs are counted for.
        frames_per_second: rate of the features.
        feature_bins: width of the features; None for what the front-end implies.
        segments: length and number of the pieces that so many positions are encoded in, by all
            that stands in the blocks' stream.
        mix: how a mask acts on what a block returns.
        staying: indices of further blocks that can't go.

    Returns:
        The site map, in an order in which sites may be cut one after the other.

    Raises:
        ModelError: a part whose cutting rules aren't known; one already cut; float16, or a matrix
            that is tied to another.
    """
    refuse_float16(encoder)
    frames = round(reference_seconds * frames_per_second)
    front, terms, positions = front_end_sites(encoder, frames, feature_bins)
    heard = heard_blocks(encoder)
    length, number = segments(positions)

    def site_of(index: int) -> Site | None:
        stays = index in heard or index in staying
        return None if stays else EncoderBlockSite(encoder, index, mix)

    inside, of_blocks = block_sites(encoder.encoders, parts_of, length, site_of)
    sites = [*front, *inside]
    refuse_tied(encoder, sites)
    terms += [replace(term, macs=term.macs * number) for term in of_blocks]
    terms += _around(encoder, length * number, len(heard))
    return SiteMap({site.name: site for site in sites}, terms, encoder, reference_seconds)


def block_sites(
    layers: Iterable[nn.Module],
    parts_of: BlockParts,
    positions: int,
    site_of: Callable[[int], Site | None],
) -> tuple[list[Site], list[CostTerm]]:
    """The sites of a stack of blocks, in an order in which they may be cut, and what they cost.

    Args:
        layers: the blocks.
        parts_of: the parts of one.
        positions: length of what they read, in frames.
        site_of: the site of a block by its index; None where it can't go.
    """
    units: list[Site] = []
    branches: list[Site] = []
    blocks: list[Site] = []
    terms: list[CostTerm] = []
    for index, layer in enumerate(layers):
        site = site_of(index)
        name = None if site is None else site.name
        parts, others = parts_of(layer, index, positions, name)
        units += [unit for part in parts for unit in part.units]
        branches += [part.branch for part in parts]
        of_block = [*(term for part in parts for term in part.all_terms()), *others]
        numbers = {unit.name: unit.units for part in parts for unit in part.units}
        rest = count_parameters(layer) - counted(of_block, numbers)
        terms += [*of_block, CostTerm(rest, 0, () if name is None else (name,))]
        blocks += [] if site is None else [site]
    return [*units, *branches, *blocks], terms


def counted(terms: Iterable[CostTerm], units: dict[str, int]) -> int:
    """Parameters of all terms; a branch counts 1."""
    total = 0
    for term in terms:
        size = term.parameters
        for name in term.factors:
            size *= units.get(name, 1)
        total += size
    return total


def heard_blocks(encoder: nn.Module) -> set[int]:
    """Indices of the blocks to which intermediate CTC listens; ESPnet counts from 1."""
    return {index - 1 for index in getattr(encoder, "interctc_layer_idx", None) or ()}


def _around(encoder: nn.Module, positions: int, heard: int) -> list[CostTerm]:
    """The last norm, where there is one, and what self-conditioned CTC adds to the stream."""
    last = getattr(encoder, "after_norm", None)
    terms = [CostTerm(0 if last is None else count_parameters(last), 0, ())]
    layer = getattr(encoder, "conditioning_layer", None)
    if layer is not None:  # CTC's own product with as many weights, and this one's
        macs = 2 * heard * positions * layer.weight.numel()
        terms.append(CostTerm(count_parameters(layer), macs, ()))
    return terms


def stack_matrices(encoder: nn.Module, attributes: Sequence[str]) -> list[Matrix]:
    """The matrices of parts of each block, such as ``self_attn`` and ``feed_forward``.

    Raises:
        ModelError: float16.
    """
    refuse_float16(encoder)
    found = []
    for block, layer in enumerate(encoder.encoders):
        for attribute in attributes:
            part = getattr(layer, attribute, None)
            for name, matrix in () if part is None else part.named_modules():
                if isinstance(matrix, nn.Linear):
                    found.append((f"block.{block}.{attribute}.{name}", block, matrix))
    return found


def hidden_states(encoder: nn.Module, run: Callable[[], T]) -> tuple[T, list[Tensor]]:
    """What a pass gives, and what each block gave in it, (B, T, D).

    A block that was left out in training, by chance, gave what it would have got.

    Args:
        encoder: has ``encoders``.
        run: the pass.
    """
    states: dict[int, Tensor] = {}
    first: list[Tensor] = []

    def keep(index: int, inputs: tuple, output: tuple) -> None:
        if not first:
            first.append(first_tensor(inputs[0]))
        states[index] = first_tensor(output[0])

    def hook(index: int):
        return lambda module, inputs, output: keep(index, inputs, output)

    handles = [
        layer.register_forward_hook(hook(index)) for index, layer in enumerate(encoder.encoders)
    ]
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    found, latest = [], first[0] if first else None
    for index in range(len(encoder.encoders)):
        latest = states.get(index, latest)
        found.append(latest)
    return result, found
