"""Sites of Whisper's encoder and decoder, as transformers builds WhisperForConditionalGeneration.

Found by attributes; nothing of transformers is imported. Heads of self- and cross-attention,
feed-forward units, branches and blocks are cut as ``espnet_prune.sites`` says; a branch takes its
norm along when it goes: Whisper normalises before each branch. Of the front-end, the first
convolution's channels are cut, which the second alone reads; the second's are the residual stream.
Embeddings, tied to the output layer, are never gated.

MACs are those of greedy decoding with a cache: the encoder always sees a whole window (30 s, 1500
positions), the decoder makes ``TOKENS_PER_SECOND`` tokens one after the other, the keys and values
of cross-attention are made once a window.
"""

import math
from collections.abc import Iterator

from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.models.huggingface.blocks import (
    ALREADY_CUT,
    GoneCachedAttention,
    head_macs,
    refuse_fewer,
    seq2seq_sites,
    stacked_layers,
)
from espnet_prune.models.huggingface.fronts import FRONT_END, ChannelSite
from espnet_prune.sites import SiteMap
from espnet_prune.sites.attention import TRANSFORMERS, HeadSite
from espnet_prune.sites.base import FEED_FORWARD_UNIT, LinearSite
from espnet_prune.sites.branch import BranchSite, GoneBranch
from espnet_prune.sites.feed_forward import FeedForwardSite
from espnet_prune.sites.unfit import refuse_float16
from espnet_prune.sites.weights import Matrix

POSITIONS_PER_SECOND = 50  # of the encoder: a 10 ms shift, then a stride of 2
TOKENS_PER_SECOND = 4  # ours: read English has about 2.7 words a second, some of several tokens
LAYERS = {"encoder": "WhisperEncoderLayer", "decoder": "WhisperDecoderLayer"}
# branch: (attribute of the layer, attribute of its norm)
ATTENTIONS = {
    "attention": ("self_attn", "self_attn_layer_norm"),
    "cross_attention": ("encoder_attn", "encoder_attn_layer_norm"),
}
FEED_FORWARD_NORM = "final_layer_norm"


class CrossHeadSite(HeadSite):
    """Heads of cross-attention; once any is cut, there are no word timestamps any more.

    transformers aligns words by heads named by their index, which the cut changes.
    """

    def __init__(self, attention: nn.Module, block: int, branch: str, generation) -> None:
        super().__init__(attention, TRANSFORMERS, block, branch)
        self.generation = generation

    def cut(self, kept: Tensor, values: Tensor) -> None:
        super().cut(kept, values)
        if len(kept) < self.units and getattr(self.generation, "alignment_heads", None):
            self.generation.alignment_heads = None


def whisper_matrices(model: nn.Module) -> Iterator[Matrix]:
    """Name, block and module of each matrix of attention and feed-forward.

    Raises:
        ModelError: see ``check_whisper``.
    """
    check_whisper(model)
    for name, block, layer in stacked_layers(model):
        for branch, (attribute, _) in ATTENTIONS.items():
            if hasattr(layer, attribute):
                for matrix in TRANSFORMERS.matrices:
                    linear = getattr(getattr(layer, attribute), matrix)
                    yield f"{name}.{branch}.{matrix}", block, linear
        for matrix in ("fc1", "fc2"):
            yield f"{name}.feed_forward.{matrix}", block, getattr(layer, matrix)


def check_whisper(model: nn.Module) -> None:
    """ModelError unless this is a dense Whisper in a precision that can be trained."""
    front, config = model.model.encoder.conv1, model.config
    if getattr(front, "out_channels", 0) != config.d_model:
        raise ModelError(f"{FRONT_END}.0: {ALREADY_CUT}")
    for stack in LAYERS:
        refuse_fewer(getattr(model.model, stack).layers, getattr(config, f"{stack}_layers"))
    for name, _, layer in stacked_layers(model):
        stack = name.partition(".")[0]
        found = type(layer).__name__
        if found != LAYERS[stack]:
            raise ModelError(
                f"{name} is a {found}, whose cutting rules aren't known; expected {LAYERS[stack]}"
            )
        heads = getattr(config, f"{stack}_attention_heads")
        units = getattr(config, f"{stack}_ffn_dim")
        attentions = [getattr(layer, a) for a, _ in ATTENTIONS.values() if hasattr(layer, a)]
        whole = all(getattr(a, "num_heads", 0) == heads for a in attentions)
        if not whole or getattr(layer.fc1, "out_features", 0) != units:
            raise ModelError(f"{name}: {ALREADY_CUT}")
    refuse_float16(model)


def whisper_sites(model: nn.Module, reference_seconds: float) -> SiteMap:
    """All sites of a Whisper model and what they cost; encoder and decoder are masked together.

    Args:
        model: a WhisperForConditionalGeneration.
        reference_seconds: length of the utterance that MACs are counted for; rounded up to whole
            windows for the encoder.

    Raises:
        ModelError: a layer whose cutting rules aren't known, one already cut, float16, or a matrix
            that is tied to another.
    """
    check_whisper(model)
    cost = _Cost(model, reference_seconds)
    generation = getattr(model, "generation_config", None)
    branches = (
        (units, branch, 3 * cost.size)  # bias and norm
        for name, block, layer in stacked_layers(model)
        for units, branch in _layer_sites(name, block, layer, generation)
    )
    first = ChannelSite(0, model.model.encoder, "conv1", "conv2")
    front = [first], [CostTerm(first.unit_parameters(), cost.front_macs(), (first.name,))]
    about = (branches, cost.macs_of, cost.rest(), reference_seconds)
    return seq2seq_sites(model, front, *about)


def _layer_sites(
    name: str, block: int, layer: nn.Module, generation: object
) -> Iterator[tuple[LinearSite, BranchSite]]:
    """The sites of a layer's units, each with that of its branch."""
    for branch, (attribute, norm) in ATTENTIONS.items():
        attention, place = getattr(layer, attribute, None), f"{name}.{branch}"
        if attention is None:
            continue
        if branch == "attention":
            heads = HeadSite(attention, TRANSFORMERS, block, place)
        else:
            heads = CrossHeadSite(attention, block, place, generation)
        gone = GoneCachedAttention(attention.layer_idx)
        instead = {attribute: gone, norm: nn.Identity()}
        yield heads, BranchSite(place, block, heads.consumer, layer, instead, name)
    place = f"{name}.feed_forward"
    units = FeedForwardSite(layer.fc1, layer.fc2, block, place)
    instead = {"fc1": nn.Identity(), "fc2": GoneBranch(), FEED_FORWARD_NORM: nn.Identity()}
    yield units, BranchSite(place, block, layer.fc2, layer, instead, name)


class _Cost:
    """MACs of one unit: D ``size``, T ``positions``, N ``tokens`` a window."""

    def __init__(self, model: nn.Module, seconds: float) -> None:
        config = model.config
        self.config = config
        self.kernel = model.model.encoder.conv1.kernel_size[0]
        self.size = config.d_model
        self.positions = config.max_source_positions
        self.windows = math.ceil(seconds * POSITIONS_PER_SECOND / self.positions)
        self.tokens = max(1, round(TOKENS_PER_SECOND * seconds / self.windows))

    def macs_of(self, site: LinearSite) -> int:
        """MACs of one head or feed-forward unit."""
        if site.kind == FEED_FORWARD_UNIT:
            decodes = site.name.startswith("decoder")
            return self.windows * 2 * self.size * (self.tokens if decodes else self.positions)
        return self.windows * head_macs(site, self.size, self.positions, self.tokens)

    def front_macs(self) -> int:
        """MACs of one channel of the front-end."""
        made = 2 * self.config.num_mel_bins  # at twice as many frames as positions
        return self.windows * self.positions * self.kernel * (made + self.size)

    def rest(self) -> int:
        """MACs of the output layer."""
        return self.windows * self.tokens * self.size * self.config.vocab_size
