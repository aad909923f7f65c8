"""Sites of ESPnet's ConformerEncoder, found by its attributes; nothing of ESPnet is imported.

Rules of masking and cutting, for D model dimension, H heads of width d_k, F feed-forward units:

- head: columns of ``linear_out``; cut rows of ``linear_q/k/v/pos``, ``pos_bias_u/v``.
- feed-forward unit: column of ``w_2``; cut row of ``w_1``.
- convolution channel: column of ``pointwise_conv2``, that is after the norm and activation (a mask
  after the GLU is not the same, the norm's bias leaks through); cut rows c and c + channels of
  ``pointwise_conv1``, the depthwise channel, the norm's channel with its running statistics.
- branch: weight and bias of its last layer; cut leaves a module that adds nothing.
- block: z y + (1 - z) x on its output; cut removes it, its final norm included.
"""

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import BRANCH, CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.models.conformer.front_end import (
    encoder_positions,
    fitting_bins,
    front_end_sites,
    padding_of,
)
from espnet_prune.sites import masked
from espnet_prune.sites.base import (
    CONVOLUTION_CHANNEL,
    FEED_FORWARD_UNIT,
    BlockSite,
    ConsumedSite,
    EspnetHeadSite,
    GoneBranch,
    LinearSite,
    OutputSite,
    Site,
    SiteMap,
    count_parameters,
)
from espnet_prune.sites.unfit import refuse_float16, refuse_tied

FRAMES_PER_SECOND = 100.0
FRONT_ENDS = ("Conv2dSubsampling", "StridingSubsampling")  # ESPnet's `conv2d`, NeMo's `striding`


class RelPositionHeadSite(EspnetHeadSite):
    """Heads of one RelPositionMultiHeadedAttention, with their part of the positions."""

    inputs = (*EspnetHeadSite.inputs, "linear_pos")

    def unit_rows(self) -> list[Tensor]:
        own = [self.attention.pos_bias_u.detach(), self.attention.pos_bias_v.detach()]
        return super().unit_rows() + own

    def cut(self, kept: Tensor, values: Tensor) -> None:
        super().cut(kept, values)
        for name in ("pos_bias_u", "pos_bias_v"):
            bias = getattr(self.attention, name)
            setattr(self.attention, name, nn.Parameter(bias.detach()[kept].clone()))


class FeedForwardSite(LinearSite):
    """Hidden units of one position-wise feed-forward module."""

    def __init__(self, module: nn.Module, block: int, branch: str) -> None:
        name = f"block.{block}.{branch}"
        super().__init__(
            f"{name}.units",
            FEED_FORWARD_UNIT,
            module.w_1.out_features,
            block,
            name,
            consumer=module.w_2,
            projections=[module.w_1],
        )


class ConvolutionSite(ConsumedSite):
    """Channels of one convolution module."""

    def __init__(self, module: nn.Module, block: int) -> None:
        self.module = module
        name = f"block.{block}.convolution"
        super().__init__(
            f"{name}.channels",
            CONVOLUTION_CHANNEL,
            module.depthwise_conv.out_channels,
            block,
            name,
            consumer=module.pointwise_conv2,
        )

    def layers(self) -> list[nn.Module]:
        m = self.module
        return [m.pointwise_conv1, m.depthwise_conv, m.pointwise_conv2]

    def unit_weights(self) -> list[Tensor]:
        m = self.module
        values, gates = m.pointwise_conv1.weight.chunk(2, dim=0)
        columns = m.pointwise_conv2.weight.transpose(0, 1).contiguous()
        return [values, gates, m.depthwise_conv.weight, columns]

    def unit_rows(self) -> list[Tensor]:
        m = self.module
        first, depthwise, norm = m.pointwise_conv1, m.depthwise_conv, m.norm
        pairs = [*first.weight.detach().chunk(2), *first.bias.detach().chunk(2)]
        single = [depthwise.weight, depthwise.bias, norm.weight, norm.bias]
        statistics = [norm.running_mean, norm.running_var]
        return pairs + [tensor.detach() for tensor in single] + statistics

    @torch.no_grad()
    def cut(self, kept: Tensor, values: Tensor) -> None:
        m = self.module
        self.cut_consumer(kept, values)
        channels = m.depthwise_conv.out_channels
        masked.keep_outputs(m.pointwise_conv1, torch.cat([kept, kept + channels]))
        masked.keep_outputs(m.depthwise_conv, kept)
        m.depthwise_conv.in_channels = m.depthwise_conv.groups = len(kept)
        m.norm.num_features = len(kept)
        m.norm.weight = nn.Parameter(m.norm.weight[kept].clone())
        m.norm.bias = nn.Parameter(m.norm.bias[kept].clone())
        m.norm.running_mean = m.norm.running_mean[kept].clone()
        m.norm.running_var = m.norm.running_var[kept].clone()


# branch: (attribute of the layer, attribute of its norm, attribute of its last linear)
BRANCHES = {
    "macaron": ("feed_forward_macaron", "norm_ff_macaron", "w_2"),
    "attention": ("self_attn", "norm_mha", "linear_out"),
    "convolution": ("conv_module", "norm_conv", "pointwise_conv2"),
    "feed_forward": ("feed_forward", "norm_ff", "w_2"),
}


class BranchSite(OutputSite):
    """One residual branch of a block, a site of one unit."""

    def __init__(self, layer: nn.Module, block: int, branch: str) -> None:
        self.layer = layer
        self.attribute, self.norm, last = BRANCHES[branch]
        last = getattr(getattr(layer, self.attribute), last)
        super().__init__(f"block.{block}.{branch}", BRANCH, 1, block, f"block.{block}", last=last)

    def remove(self) -> None:
        gone = None if self.attribute == "feed_forward_macaron" else GoneBranch()
        setattr(self.layer, self.attribute, gone)
        setattr(self.layer, self.norm, nn.Identity())
        if self.attribute == "conv_module":
            self.layer._conv_takes_mask = False


def _mix(z: Tensor, inputs: tuple, output: tuple) -> tuple:
    """A block's output y becomes z y + (1 - z) x; positions and padding pass."""
    (x, position), (y, _), padding = inputs[0], output[0], output[1]
    z = z.to(y.dtype)
    return (z * y + (1 - z) * x, position), padding


def _block_terms(layer: nn.Module, name: str, size: int, frames: int) -> list[CostTerm]:
    """Costs of a block's parts; ``frames`` after subsampling (T), ``size`` is D."""
    width = layer.self_attn.d_k
    positions = 2 * frames - 1
    kernel = layer.conv_module.depthwise_conv.kernel_size[0]
    head_macs = 4 * frames * size * width + positions * size * width
    head_macs += 2 * frames * frames * width + frames * positions * width
    norm = 2 * size
    terms = [
        CostTerm(5 * size * width + 5 * width, head_macs, (f"{name}.attention.heads",)),
        CostTerm(
            3 * size + kernel + 5,
            3 * size * frames + kernel * frames,
            (f"{name}.convolution.channels",),
        ),
        CostTerm(norm, 0, (name,)),
    ]
    for branch, (attribute, _, _) in BRANCHES.items():
        if getattr(layer, attribute) is not None:
            terms.append(CostTerm(size + norm, 0, (f"{name}.{branch}",)))
            if branch in ("macaron", "feed_forward"):
                unit = f"{name}.{branch}.units"
                terms.append(CostTerm(2 * size + 1, 2 * size * frames, (unit,)))
    return terms


def check_conformer(encoder: nn.Module) -> None:
    """ModelError unless this is a Conformer whose cutting rules are known, and not in float16."""
    _check_parts(encoder)
    refuse_float16(encoder)


def _check_parts(encoder: nn.Module) -> None:
    for attribute in ("embed", "encoders", "after_norm"):
        if not hasattr(encoder, attribute):
            raise ModelError(
                f"{type(encoder).__name__} has no '{attribute}'; expected ESPnet's ConformerEncoder"
            )
    if type(encoder.embed).__name__ not in FRONT_ENDS:
        raise ModelError(
            f"front-end {type(encoder.embed).__name__} can't be cut yet; use `input_layer: conv2d`"
        )
    if getattr(encoder, "interctc_layer_idx", []):
        raise ModelError("intermediate CTC can't be joined with pruning; leave interctc_layer_idx")
    for index, layer in enumerate(encoder.encoders):
        parts = {"self_attn": "RelPositionMultiHeadedAttention", "conv_module": "ConvolutionModule"}
        parts["feed_forward"] = "PositionwiseFeedForward"
        for attribute, expected in parts.items():
            found = type(getattr(layer, attribute, None)).__name__
            if found != expected:
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
    reference_seconds: float = 10.0,
    frames_per_second: float = FRAMES_PER_SECOND,
    feature_bins: int | None = None,
) -> SiteMap:
    """All sites of a ConformerEncoder and what they cost.

    Args:
        encoder: the encoder; nothing in it is changed.
        reference_seconds: length of the utterance that MACs are counted for.
        frames_per_second: of the features (100 for a 10 ms shift, 125 for ESPnet's default).
        feature_bins: width of the features; by default what the front-end implies.

    Returns:
        The site map, in an order in which sites may be cut one after the other.

    Raises:
        ModelError: a part of the encoder whose cutting rules aren't known, which says the setting;
            float16, or a matrix that is tied to another.
    """
    check_conformer(encoder)
    frames = round(reference_seconds * frames_per_second)
    size = encoder.output_size()
    found, terms = front_end_sites(encoder.embed, frames, size, feature_bins)
    sites: list[Site] = list(found)
    subframes = encoder_positions(frames, padding_of(encoder.embed))
    upper: list[Site] = []
    for block, layer in enumerate(encoder.encoders):
        sites += [
            RelPositionHeadSite(layer.self_attn, block, f"block.{block}.attention"),
            ConvolutionSite(layer.conv_module, block),
        ]
        sites.append(FeedForwardSite(layer.feed_forward, block, "feed_forward"))
        if layer.feed_forward_macaron is not None:
            sites.append(FeedForwardSite(layer.feed_forward_macaron, block, "macaron"))
        upper += [
            BranchSite(layer, block, branch)
            for branch, (attribute, _, _) in BRANCHES.items()
            if getattr(layer, attribute) is not None
        ]
        terms += _block_terms(layer, f"block.{block}", size, subframes)
    refuse_tied(encoder, sites)
    layers = encoder.encoders
    upper += [BlockSite(f"block.{b}", b, layers, layer, _mix) for b, layer in enumerate(layers)]
    terms.append(CostTerm(count_parameters(encoder.after_norm), 0, ()))
    by_name = {site.name: site for site in sites + upper}
    return SiteMap(by_name, terms, encoder, reference_seconds)


def describe_conformer(encoder: nn.Module) -> dict:
    """The options that build an encoder of this one's dense shape: its own, or read off it.

    Its attribute ``input_size`` says the features' width where there is one. The module itself
    shows the width only up to rounding, so that ``input_size`` may be a list of those that fit.

    Raises:
        ModelError: a part of it isn't known, it was cut and no longer shows them, or its
            ``input_size`` doesn't fit it.
    """
    carried = getattr(encoder, "espnet_prune_config", None)
    options = dict(carried) if carried else _read_options(encoder)
    size = getattr(encoder, "input_size", None)
    if size is None:
        return options
    known = options.get("input_size", size)
    fits = known[0] if isinstance(known, list) else known
    if encoder_positions(size) != encoder_positions(fits):
        raise ModelError(
            f"{type(encoder).__name__}.input_size: {size} doesn't fit its first layers; expected "
            f"{known}, the width of the features"
        )
    return {**options, "input_size": size}


def _read_options(encoder: nn.Module) -> dict:
    _check_parts(encoder)
    layers, embed = encoder.encoders, encoder.embed
    layer = layers[0]
    widths = fitting_bins(embed.out.in_features // embed.conv[2].out_channels)
    return {
        "input_size": widths if len(widths) > 1 else widths[0],
        "output_size": encoder.output_size(),
        "attention_heads": layer.self_attn.h,
        "linear_units": layer.feed_forward.w_1.out_features,
        "num_blocks": len(layers),
        "dropout_rate": float(layer.dropout.p),
        "positional_dropout_rate": float(embed.pos_enc.dropout.p),
        "attention_dropout_rate": float(layer.self_attn.dropout.p),
        "stochastic_depth_rate": [float(block.stochastic_depth_rate) for block in layers],
        "layer_drop_rate": float(layers.layer_drop_rate),
        "macaron_style": layer.feed_forward_macaron is not None,
        "rel_pos_type": "latest",
        "cnn_module_kernel": layer.conv_module.depthwise_conv.kernel_size[0],
        "activation_type": _activation_name(layer.conv_module.activation),
        "zero_triu": layer.self_attn.zero_triu,
        "use_sdpa": layer.self_attn.use_sdpa,
    }


def _activation_name(activation: nn.Module) -> str:
    name = type(activation).__name__.lower()
    return "swish" if name == "silu" else name
