"""Sites of ESPnet's ConformerEncoder, found by its attributes; nothing of ESPnet is imported.

Heads, feed-forward units, convolution channels and branches are cut as ``espnet_prune.sites`` says,
the channels of the front-end as ``front_end`` does. A block is z y + (1 - z) x on its output; its
cut takes its final norm along.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.models.conformer.front_end import encoder_positions, front_end_sites, padding_of
from espnet_prune.sites import Site, SiteMap, count_parameters
from espnet_prune.sites.attention import ESPNET_RELATIVE, HeadSite
from espnet_prune.sites.block import BlockSite
from espnet_prune.sites.branch import BranchSite, GoneBranch
from espnet_prune.sites.convolution import ConvolutionSite
from espnet_prune.sites.feed_forward import FeedForwardSite
from espnet_prune.sites.unfit import refuse_float16, refuse_tied
from espnet_prune.sites.weights import Matrix

PARTS = {
    "self_attn": "RelPositionMultiHeadedAttention",
    "conv_module": "ConvolutionModule",
    "feed_forward": "PositionwiseFeedForward",
}
# branch: (attribute of the layer, attribute of its norm, attribute of its last linear)
BRANCHES = {
    "macaron": ("feed_forward_macaron", "norm_ff_macaron", "w_2"),
    "attention": ("self_attn", "norm_mha", "linear_out"),
    "convolution": ("conv_module", "norm_conv", "pointwise_conv2"),
    "feed_forward": ("feed_forward", "norm_ff", "w_2"),
}
# attribute of a layer: attributes of its linears
MATRICES = {
    "self_attn": ESPNET_RELATIVE.matrices,
    "feed_forward_macaron": ("w_1", "w_2"),
    "feed_forward": ("w_1", "w_2"),
}


def check_parts(encoder: nn.Module, front_ends: Sequence[str], dense: bool = True) -> None:
    """ModelError unless this is a Conformer whose cutting rules are known.

    Args:
        encoder: the encoder.
        front_ends: names of the classes of its front-end that are known.
        dense: whether none of its branches may be gone.
    """
    front_end = type(getattr(encoder, "embed", None)).__name__
    if front_end not in front_ends:
        raise ModelError(f"front-end {front_end} can't be cut yet; use `input_layer: conv2d`")
    if getattr(encoder, "interctc_layer_idx", []):
        raise ModelError("intermediate CTC can't be joined with pruning; leave interctc_layer_idx")
    for index, layer in enumerate(encoder.encoders):
        for attribute, expected in PARTS.items():
            found = type(getattr(layer, attribute, None)).__name__
            if found != expected and (dense or found != GoneBranch.__name__):
                raise ModelError(
                    f"{type(layer).__name__} {index}: {attribute} is {found}, expected {expected}; "
                    "use `encoder: conformer`, "
                    "`rel_pos_type: latest`, `use_cnn_module: true`, "
                    "`positionwise_layer_type: linear`; a model that is already cut can't be gated"
                )
        if not layer.normalize_before or layer.concat_after:
            raise ModelError(f"block {index}: expected normalize_before: true, concat_after: false")


def conformer_sites(
    encoder: nn.Module,
    reference_seconds: float,
    frames_per_second: float,
    feature_bins: int | None,
) -> SiteMap:
    """All sites of a ConformerEncoder and what they cost.

    Args:
        encoder: one that ``check_parts`` takes; nothing in it is changed.
        reference_seconds: length of the utterance that MACs are counted for.
        frames_per_second: rate of the features (100 for a 10 ms shift, 125 for ESPnet's default).
        feature_bins: width of the features; None for what the front-end implies.

    Returns:
        The site map, in an order in which sites may be cut one after the other.

    Raises:
        ModelError: float16, or a matrix that is tied to another.
    """
    refuse_float16(encoder)
    frames = round(reference_seconds * frames_per_second)
    positions = encoder_positions(frames, padding_of(encoder.embed))
    front, terms = front_end_sites(encoder.embed, frames, encoder.output_size(), feature_bins)
    sites: list[Site] = [*front]
    branches: list[Site] = []
    blocks: list[Site] = []
    for index, layer in enumerate(encoder.encoders):
        block = f"block.{index}"
        units = _unit_sites(layer, index)
        sites += units
        terms += [
            CostTerm(site.unit_parameters(), _macs(site, positions), (site.name,)) for site in units
        ]
        for branch in filter(partial(_has, layer), BRANCHES):
            site, norm = _branch(layer, index, branch), getattr(layer, BRANCHES[branch][1])
            branches.append(site)
            terms.append(CostTerm(site.last.bias.numel() + count_parameters(norm), 0, (site.name,)))
        blocks.append(BlockSite(block, index, encoder.encoders, layer, _mix))
        terms.append(CostTerm(count_parameters(layer.norm_final), 0, (block,)))
    refuse_tied(encoder, sites)
    terms.append(CostTerm(count_parameters(encoder.after_norm), 0, ()))
    by_name = {site.name: site for site in sites + branches + blocks}
    return SiteMap(by_name, terms, encoder, reference_seconds)


def conformer_matrices(encoder: nn.Module) -> list[Matrix]:
    """The matrices of its attention and feed-forward parts.

    Raises:
        ModelError: float16.
    """
    refuse_float16(encoder)
    found = []
    for block, layer in enumerate(encoder.encoders):
        for attribute, names in MATRICES.items():
            module = getattr(layer, attribute)
            there = module is not None and not isinstance(module, GoneBranch)
            for name in names if there else ():
                found.append((f"block.{block}.{attribute}.{name}", block, getattr(module, name)))
    return found


def _has(layer: nn.Module, branch: str) -> bool:
    return getattr(layer, BRANCHES[branch][0]) is not None


def _unit_sites(layer: nn.Module, index: int) -> list[Site]:
    """The sites of a layer's units, one for each branch that it has."""
    block = f"block.{index}"
    sites: list[Site] = [
        HeadSite(layer.self_attn, ESPNET_RELATIVE, index, f"{block}.attention"),
        ConvolutionSite(layer.conv_module, index, f"{block}.convolution"),
    ]
    for branch in ("feed_forward", "macaron"):
        if _has(layer, branch):
            part = getattr(layer, BRANCHES[branch][0])
            sites.append(FeedForwardSite(part.w_1, part.w_2, index, f"{block}.{branch}"))
    return sites


def _branch(layer: nn.Module, index: int, branch: str) -> BranchSite:
    attribute, norm, last = BRANCHES[branch]
    last = getattr(getattr(layer, attribute), last)
    instead = {attribute: None if branch == "macaron" else GoneBranch(), norm: nn.Identity()}
    if branch == "convolution":
        instead["_conv_takes_mask"] = False
    block = f"block.{index}"
    return BranchSite(f"{block}.{branch}", index, last, layer, instead, block)


def _mix(z: Tensor, inputs: tuple, output: tuple) -> tuple:
    """A block's output y becomes z y + (1 - z) x; positions and padding pass."""
    (x, position), (y, _), padding = inputs[0], output[0], output[1]
    z = z.to(y.dtype)
    return (z * y + (1 - z) * x, position), padding


def _macs(site: Site, positions: int) -> int:
    """Multiply-accumulates of one unit; ``positions`` are those after subsampling."""
    size = site.consumer.weight.shape[0]
    if isinstance(site, HeadSite):
        distances = 2 * positions - 1
        projected = (4 * positions + distances) * size * site.width
        return projected + (2 * positions + distances) * positions * site.width
    if isinstance(site, ConvolutionSite):
        return (3 * size + site.module.depthwise_conv.kernel_size[0]) * positions
    return 2 * size * positions
