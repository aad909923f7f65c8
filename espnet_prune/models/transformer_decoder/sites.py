"""Sites of ESPnet's TransformerDecoder, found by its attributes; nothing of ESPnet is imported.

With D the model dimension and d_k a head's width: a head of self- or cross-attention is masked at
the columns of ``linear_out`` and cut from the rows of ``linear_q/k/v``; a feed-forward unit at its
column of ``w_2`` and from its row of ``w_1``; a branch scales its last layer, weight and bias, and
takes its norm along when it goes; a block is z y + (1 - z) x. Embedding, last norm and output layer
are never gated. The names begin with ``decoder.``; the blocks count on from the encoder's.

MACs are those of a beam search that projects nothing twice (``espnet.fast_decoder``): the keys and
values of cross-attention once an utterance, everything else once a token and hypothesis.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from espnet_prune.budget.structure import BRANCH, CostTerm
from espnet_prune.config import check_range
from espnet_prune.errors import ModelError
from espnet_prune.sites.base import (
    FEED_FORWARD_UNIT,
    BlockSite,
    EspnetHeadSite,
    GoneBranch,
    LinearSite,
    OutputSite,
    Site,
    SiteMap,
    count_parameters,
)
from espnet_prune.sites.unfit import refuse_float16, refuse_tied

DECODER = "decoder."  # how the names of its sites begin
POSITIONS_PER_SECOND = 25  # of the encoder's output: a 10 ms shift, subsampled by 4
# branch: (attribute of the layer, its class, attribute of its norm, attribute of its last linear)
BRANCHES = {
    "attention": ("self_attn", "MultiHeadedAttention", "norm1", "linear_out"),
    "cross_attention": ("src_attn", "MultiHeadedAttention", "norm2", "linear_out"),
    "feed_forward": ("feed_forward", "PositionwiseFeedForward", "norm3", "w_2"),
}


@dataclass(frozen=True)
class DecoderConfig:
    """That the attention decoder is pruned too, and what its MACs are counted for.

    Parameters are counted as they are; of MACs, both values below are this project's choice.

    Attributes:
        tokens_per_second: of audio, that are decoded. Read English has about 2.7 words a second,
            some of several tokens.
        beam_size: hypotheses side by side, each of which costs every token; as in decode.yaml.
    """

    tokens_per_second: float = 4.0
    beam_size: int = 10

    def __post_init__(self) -> None:
        check_range("decoder: tokens_per_second", self.tokens_per_second, 0.01, 1000)
        check_range("decoder: beam_size", self.beam_size, 1, 1000)


class DecoderFeedForwardSite(LinearSite):
    """Hidden units of one layer's feed-forward module."""

    def __init__(self, module: nn.Module, block: int, branch: str) -> None:
        super().__init__(
            f"{branch}.units",
            FEED_FORWARD_UNIT,
            module.w_1.out_features,
            block,
            branch,
            consumer=module.w_2,
            projections=[module.w_1],
        )


class DecoderBranchSite(OutputSite):
    """One residual branch of a layer, a site of one unit."""

    def __init__(self, layer: nn.Module, block: int, parent: str, branch: str) -> None:
        self.layer = layer
        self.attribute, _, self.norm, last = BRANCHES[branch]
        last = getattr(getattr(layer, self.attribute), last)
        super().__init__(f"{parent}.{branch}", BRANCH, 1, block, parent, last=last)

    def remove(self) -> None:
        setattr(self.layer, self.attribute, GoneBranch())
        setattr(self.layer, self.norm, nn.Identity())


def _mix(z: Tensor, inputs: tuple, output: tuple) -> tuple:
    """A layer's output y becomes z y + (1 - z) x; masks and memory pass."""
    x, y = inputs[0], output[0]
    z = z.to(y.dtype)
    return z * y + (1 - z) * x, *output[1:]


def is_transformer_decoder(module: nn.Module | None) -> bool:
    """Whether this is ESPnet's TransformerDecoder, dense or cut."""
    return any(kind.__name__ == "TransformerDecoder" for kind in type(module).__mro__)


def check_decoder(decoder: nn.Module | None) -> None:
    """ModelError unless this is a dense TransformerDecoder, not in float16, with known rules."""
    if not is_transformer_decoder(decoder):
        found = "no decoder" if decoder is None else f"a {type(decoder).__name__}"
        raise ModelError(
            f"decoder: the model has {found}, expected `decoder: transformer`; leave the method's "
            "key `decoder` out to prune the encoder alone"
        )
    if decoder.gradient_checkpoint_layers:
        raise ModelError(
            "decoder: gradient checkpointing computes layers again after their masks are gone; "
            "leave gradient_checkpoint_layers empty"
        )
    for index, layer in enumerate(decoder.decoders):
        for attribute, expected, _, _ in BRANCHES.values():
            found = type(getattr(layer, attribute)).__name__
            if found != expected:
                raise ModelError(
                    f"decoder block {index}: {attribute} is {found}, expected {expected}; a model "
                    "that is already cut can't be gated"
                )
        attentions = (layer.self_attn, layer.src_attn)
        if any(attention.h * attention.d_k != layer.size for attention in attentions):
            raise ModelError(f"decoder block {index}: a model that is already cut can't be gated")
        plain = layer.sequential_attn is None and not layer.concat_after
        if not layer.normalize_before or not plain:
            raise ModelError(
                f"decoder block {index}: expected normalize_before: true, concat_after: false"
            )
    refuse_float16(decoder)


def decoder_sites(
    decoder: nn.Module,
    config: DecoderConfig | None = None,
    reference_seconds: float = 10.0,
    positions: int | None = None,
    first_block: int = 0,
) -> SiteMap:
    """All sites of a TransformerDecoder and what they cost.

    Args:
        decoder: the decoder; nothing in it is changed.
        config: what MACs are counted for.
        reference_seconds: length of the utterance that MACs are counted for.
        positions: of the encoder's output for it; by default ``POSITIONS_PER_SECOND``.
        first_block: index of its first block, the number of the encoder's.

    Raises:
        ModelError: another decoder, or one whose cutting rules aren't known, which says the
            setting; float16, or a matrix that is tied to another.
    """
    check_decoder(decoder)
    if positions is None:
        positions = round(reference_seconds * POSITIONS_PER_SECOND)
    cost = _Cost(config or DecoderConfig(), reference_seconds, positions)
    sites: list[Site] = []
    branches: list[Site] = []
    blocks: list[Site] = []
    terms: list[CostTerm] = []
    for index, layer in enumerate(decoder.decoders):
        name, block = f"{DECODER}block.{index}", first_block + index
        for branch, (attribute, _, norm, _) in BRANCHES.items():
            module, place = getattr(layer, attribute), f"{name}.{branch}"
            kind = DecoderFeedForwardSite if branch == "feed_forward" else EspnetHeadSite
            site = kind(module, block, place)
            unit = cost.units_of(site, branch)
            whole = sum(map(count_parameters, (module, getattr(layer, norm))))
            own = whole - unit.parameters * site.units
            sites.append(site)
            branches.append(DecoderBranchSite(layer, block, name, branch))
            terms += [unit, CostTerm(own, 0, (place,))]
        blocks.append(BlockSite(name, block, decoder.decoders, layer, _mix))
    refuse_tied(decoder, sites)
    rest = count_parameters(decoder) - count_parameters(decoder.decoders)
    terms.append(CostTerm(rest, cost.output_layer(decoder), ()))
    by_name = {site.name: site for site in sites + branches + blocks}
    return SiteMap(by_name, terms, decoder, reference_seconds)


def with_decoder(encoder: SiteMap, decoder: SiteMap) -> SiteMap:
    """Encoder and decoder as one; the decoder runs on its own, and is masked then too."""
    return SiteMap(
        {**encoder.sites, **decoder.sites},
        [*encoder.terms, *decoder.terms],
        encoder.encoder,
        encoder.reference_seconds,
        entries=(*encoder.entries, decoder.encoder),
    )


class _Cost:
    """What one unit costs: T ``positions``, L ``tokens`` of each of ``hypotheses``."""

    def __init__(self, config: DecoderConfig, seconds: float, positions: int) -> None:
        self.positions = positions
        self.hypotheses = config.beam_size
        self.tokens = max(1, round(config.tokens_per_second * seconds))

    def units_of(self, site: LinearSite, branch: str) -> CostTerm:
        """Parameters and MACs of one head or feed-forward unit."""
        size = site.consumer.out_features
        steps = self.tokens * self.hypotheses
        if branch == "feed_forward":
            return CostTerm(2 * size + 1, 2 * size * steps, (site.name,))
        if branch == "attention":  # each token attends to itself and to those before
            projected, pairs = 4 * steps, self.hypotheses * self.tokens * (self.tokens + 1) // 2
        else:
            projected, pairs = 2 * steps + 2 * self.positions, steps * self.positions
        macs = projected * size * site.width + 2 * pairs * site.width
        return CostTerm(4 * size * site.width + 3 * site.width, macs, (site.name,))

    def output_layer(self, decoder: nn.Module) -> int:
        """MACs of the output layer."""
        layer = decoder.output_layer
        return 0 if layer is None else self.tokens * self.hypotheses * layer.weight.numel()
