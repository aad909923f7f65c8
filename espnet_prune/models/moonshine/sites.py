"""Sites of Moonshine's encoder and decoder, as transformers builds them.

Found by attributes; nothing of transformers is imported. Heads of self- and cross-attention,
feed-forward units (the decoder's are gated), branches and blocks are cut as
``espnet_prune.sites`` says; a branch takes its norm along when it goes. Positions are rotary,
turned on what attention reads. Of the front-end's convolutions, the channels of the first two are
cut, those of the first with the norm over all of them; the third's are the residual stream.

MACs are those of greedy decoding with a cache, of a recording as long as it is: the decoder makes
``TOKENS_PER_SECOND`` tokens one after the other, the keys and values of cross-attention are made
once.
"""

from collections.abc import Iterator

from torch import nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.models.huggingface.blocks import (
    ALREADY_CUT,
    ConfiguredHeadSite,
    GoneAttention,
    GoneCachedAttention,
    head_macs,
    refuse_fewer,
    refuse_shared_keys,
    seq2seq_sites,
    stacked_layers,
)
from espnet_prune.models.huggingface.fronts import FRONT_END, ChannelSite
from espnet_prune.models.whisper.sites import TOKENS_PER_SECOND
from espnet_prune.sites import SiteMap, count_parameters
from espnet_prune.sites.attention import AttentionNames
from espnet_prune.sites.base import LinearSite
from espnet_prune.sites.branch import BranchSite, GoneBranch
from espnet_prune.sites.feed_forward import FeedForwardSite, GatedFeedForwardSite
from espnet_prune.sites.unfit import refuse_float16
from espnet_prune.sites.weights import Matrix

SAMPLE_RATE = 16000
ATTENTION = AttentionNames(None, "head_dim", "o_proj", ("q_proj", "k_proj", "v_proj"))
FEED_FORWARD = ("fc1", "fc2")
# branch: attribute of the layer, and of its norm, by the layer's class
BRANCHES = {
    "MoonshineEncoderLayer": {
        "attention": ("self_attn", "input_layernorm"),
        "feed_forward": ("mlp", "post_attention_layernorm"),
    },
    "MoonshineDecoderLayer": {
        "attention": ("self_attn", "input_layernorm"),
        "cross_attention": ("encoder_attn", "post_attention_layernorm"),
        "feed_forward": ("mlp", "final_layernorm"),
    },
}
UNITS = {"MoonshineEncoderMLP": FeedForwardSite, "MoonshineDecoderMLP": GatedFeedForwardSite}


def moonshine_matrices(model: nn.Module) -> Iterator[Matrix]:
    """Name, block and module of each matrix of attention and feed-forward.

    Raises:
        ModelError: see ``check_moonshine``.
    """
    check_moonshine(model)
    for name, block, layer in stacked_layers(model):
        for branch, (attribute, _) in BRANCHES[type(layer).__name__].items():
            names = FEED_FORWARD if branch == "feed_forward" else ATTENTION.matrices
            for matrix in names:
                yield f"{name}.{branch}.{matrix}", block, getattr(getattr(layer, attribute), matrix)


def check_moonshine(model: nn.Module) -> None:
    """ModelError unless this is a dense Moonshine in a precision that can be trained."""
    config, encoder = model.config, model.model.encoder
    for index, width in enumerate((config.hidden_size, 2 * config.hidden_size)):
        if getattr(getattr(encoder, f"conv{index + 1}"), "out_channels", 0) != width:
            raise ModelError(f"{FRONT_END}.{index}: {ALREADY_CUT}")
    heads, units = config.num_attention_heads, config.intermediate_size
    refuse_fewer(model.model.encoder.layers, config.encoder_num_hidden_layers)
    refuse_fewer(model.model.decoder.layers, config.decoder_num_hidden_layers)
    for name, _, layer in stacked_layers(model):
        known = BRANCHES.get(type(layer).__name__)
        if known is None:
            raise ModelError(
                f"{name} is a {type(layer).__name__}, whose cutting rules aren't known; expected "
                f"one of {', '.join(BRANCHES)}"
            )
        for branch, (attribute, _) in known.items():
            part = getattr(layer, attribute)
            if isinstance(part, (GoneAttention, GoneBranch)):
                raise ModelError(f"{name}: {ALREADY_CUT}")
            feeds = branch == "feed_forward"
            found = (part.fc2 if feeds else part.o_proj).in_features
            if found != (units if feeds else heads * part.head_dim):
                raise ModelError(f"{name}: {ALREADY_CUT}")
            if not feeds:
                refuse_shared_keys(part, name)
    refuse_float16(model)


def moonshine_sites(model: nn.Module, reference_seconds: float) -> SiteMap:
    """All sites of a Moonshine model and what they cost; both stacks are masked together.

    Args:
        model: a MoonshineForConditionalGeneration.
        reference_seconds: length of the utterance that MACs are counted for.

    Raises:
        ModelError: a layer whose cutting rules aren't known, one already cut, float16, or a matrix
            that is tied to another.
    """
    check_moonshine(model)
    cost = _Cost(model, reference_seconds)
    about = (_branches(model), cost.macs_of, cost.rest(model), reference_seconds)
    return seq2seq_sites(model, _front(model.model.encoder, cost), *about)


def _front(encoder: nn.Module, cost: "_Cost") -> tuple[list[ChannelSite], list[CostTerm]]:
    """The sites of the convolutions and what these cost, up to the third's bias."""
    first = ChannelSite(0, encoder, "conv1", "conv2", between="groupnorm")
    second = ChannelSite(1, encoder, "conv2", "conv3")
    made, kernel, read = (
        encoder.conv1.weight[0].numel(),
        encoder.conv2.kernel_size[0],
        encoder.conv3.weight[:, 0].numel(),
    )
    norm = 2  # weight and bias
    return [first, second], [
        CostTerm(made + norm, made * cost.convolved[0], (first.name,)),
        CostTerm(kernel, kernel * cost.convolved[1], (first.name, second.name)),
        CostTerm(1, 0, (second.name,)),
        CostTerm(read, read * cost.convolved[2], (second.name,)),
    ]


def _branches(model: nn.Module) -> Iterator[tuple[LinearSite, BranchSite, int]]:
    for name, block, layer in stacked_layers(model):
        for branch, (attribute, norm) in BRANCHES[type(layer).__name__].items():
            place, part = f"{name}.{branch}", getattr(layer, attribute)
            units = _units(place, block, part)
            instead = {attribute: _gone(part), norm: nn.Identity()}
            bias = units.consumer.bias
            beside = count_parameters(getattr(layer, norm)) + (0 if bias is None else len(bias))
            yield units, BranchSite(place, block, units.consumer, layer, instead, name), beside


def _units(branch: str, block: int, part: nn.Module) -> LinearSite:
    kind = UNITS.get(type(part).__name__)
    if kind is None:
        return ConfiguredHeadSite(part, ATTENTION, block, branch)
    return kind(part.fc1, part.fc2, block, branch)


def _gone(part: nn.Module) -> nn.Module:
    return GoneCachedAttention(part.layer_idx) if hasattr(part, "layer_idx") else GoneBranch()


class _Cost:
    """MACs of one unit: D ``size``, T ``frames``, N ``tokens`` of the recording.

    ``convolved`` are the frames after each of the front-end's convolutions, the last of them T.
    """

    def __init__(self, model: nn.Module, seconds: float) -> None:
        self.size = model.config.hidden_size
        self.tokens = max(1, round(TOKENS_PER_SECOND * seconds))
        self.convolved, length = [], round(seconds * SAMPLE_RATE)
        encoder = model.model.encoder
        for layer in (encoder.conv1, encoder.conv2, encoder.conv3):
            length = (length - layer.kernel_size[0]) // layer.stride[0] + 1
            self.convolved.append(length)
        self.frames = length

    def macs_of(self, site: LinearSite) -> int:
        """MACs of one head or feed-forward unit."""
        if isinstance(site, ConfiguredHeadSite):
            padding = site.attention.head_dim_padding
            return head_macs(site, self.size, self.frames, self.tokens, padding)
        if site.name.startswith("decoder"):
            return 3 * self.tokens * self.size
        return 2 * self.frames * self.size

    def rest(self, model: nn.Module) -> int:
        """MACs of the output layer."""
        return self.tokens * model.proj_out.weight.numel()
