"""Sites of ESPnet's TransformerDecoder, found by its attributes; nothing of ESPnet is imported.

Heads of self- and cross-attention, feed-forward units and branches are cut as
``espnet_prune.sites`` says; a branch takes its norm along when it goes; a block is z y + (1 - z) x.
Embedding, last norm and output layer are never gated. The names begin with ``decoder.``; the blocks
count on from the encoder's.

MACs are those of a beam search that projects nothing twice (``fast_decoder``): the keys and values
of cross-attention once an utterance, everything else once a token and hypothesis.
"""

from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.sites import DECODER, DecoderConfig, Site, SiteMap, count_parameters
from espnet_prune.sites.attention import ESPNET, HeadSite
from espnet_prune.sites.base import LinearSite
from espnet_prune.sites.block import BlockSite
from espnet_prune.sites.branch import BranchSite, GoneBranch
from espnet_prune.sites.feed_forward import FeedForwardSite
from espnet_prune.sites.unfit import refuse_float16, refuse_tied

# branch: (attribute of the layer, its class, attribute of its norm, attribute of its last linear)
BRANCHES = {
    "attention": ("self_attn", "MultiHeadedAttention", "norm1", "linear_out"),
    "cross_attention": ("src_attn", "MultiHeadedAttention", "norm2", "linear_out"),
    "feed_forward": ("feed_forward", "PositionwiseFeedForward", "norm3", "w_2"),
}


def _mix(z: Tensor, inputs: tuple, output: tuple) -> tuple:
    """A layer's output y becomes z y + (1 - z) x; masks and memory pass."""
    x, y = inputs[0], output[0]
    z = z.to(y.dtype)
    return z * y + (1 - z) * x, *output[1:]


def check_decoder(decoder: nn.Module) -> None:
    """ModelError unless this is a decoder, not in float16, whose cutting rules are known."""
    if decoder.gradient_checkpoint_layers:
        raise ModelError(
            "decoder: gradient checkpointing computes layers again after their masks are gone; "
            "leave gradient_checkpoint_layers empty"
        )
    for index, layer in enumerate(decoder.decoders):
        for attribute, expected, _, _ in BRANCHES.values():
            part = getattr(layer, attribute)
            if not isinstance(part, GoneBranch) and type(part).__name__ != expected:
                raise ModelError(
                    f"decoder block {index}: {attribute} is {type(part).__name__}, expected "
                    f"{expected}"
                )
        plain = layer.sequential_attn is None and not layer.concat_after
        if not layer.normalize_before or not plain:
            raise ModelError(
                f"decoder block {index}: expected normalize_before: true, concat_after: false"
            )
    refuse_float16(decoder)


def decoder_sites(
    decoder: nn.Module,
    config: DecoderConfig,
    reference_seconds: float,
    positions: int,
    first_block: int,
) -> SiteMap:
    """All sites of a TransformerDecoder and what they cost; see ``DecoderFamily``."""
    check_decoder(decoder)
    cost = _Cost(config, reference_seconds, positions)
    sites: list[Site] = []
    branches: list[Site] = []
    blocks: list[Site] = []
    terms: list[CostTerm] = []
    for index, layer in enumerate(decoder.decoders):
        name, block = f"{DECODER}block.{index}", first_block + index
        for branch, (attribute, _, norm, last) in BRANCHES.items():
            module, place = getattr(layer, attribute), f"{name}.{branch}"
            if isinstance(module, GoneBranch):
                continue
            if branch == "feed_forward":
                site = FeedForwardSite(module.w_1, module.w_2, block, place)
            else:
                site = HeadSite(module, ESPNET, block, place)
            unit = CostTerm(site.unit_parameters(), cost.macs_of(site, branch), (site.name,))
            whole = sum(map(count_parameters, (module, getattr(layer, norm))))
            sites.append(site)
            instead = {attribute: GoneBranch(), norm: nn.Identity()}
            branches.append(BranchSite(place, block, getattr(module, last), layer, instead, name))
            terms += [unit, CostTerm(whole - unit.parameters * site.units, 0, (place,))]
        blocks.append(BlockSite(name, block, decoder.decoders, layer, _mix))
    refuse_tied(decoder, sites)
    rest = count_parameters(decoder) - count_parameters(decoder.decoders)
    terms.append(CostTerm(rest, cost.output_layer(decoder), ()))
    by_name = {site.name: site for site in sites + branches + blocks}
    return SiteMap(by_name, terms, decoder, reference_seconds)


class _Cost:
    """What one unit costs: T ``positions``, L ``tokens`` of each of ``hypotheses``."""

    def __init__(self, config: DecoderConfig, seconds: float, positions: int) -> None:
        self.positions = positions
        self.hypotheses = config.beam_size
        self.tokens = max(1, round(config.tokens_per_second * seconds))

    def macs_of(self, site: LinearSite, branch: str) -> int:
        """MACs of one head or feed-forward unit."""
        size = site.consumer.out_features
        steps = self.tokens * self.hypotheses
        if branch == "feed_forward":
            return 2 * size * steps
        if branch == "attention":  # each token attends to itself and to those before
            projected, pairs = 4 * steps, self.hypotheses * self.tokens * (self.tokens + 1) // 2
        else:
            projected, pairs = 2 * steps + 2 * self.positions, steps * self.positions
        return projected * size * site.width + 2 * pairs * site.width

    def output_layer(self, decoder: nn.Module) -> int:
        """MACs of the output layer."""
        layer = decoder.output_layer
        return 0 if layer is None else self.tokens * self.hypotheses * layer.weight.numel()
