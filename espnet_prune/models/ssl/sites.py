"""Sites of wav2vec 2.0 and HuBERT, as transformers builds them.

Found by attributes; nothing of transformers is imported. The feature extractor's channels are those
of ``front``; the rest is of the Transformer, cut as ``espnet_prune.sites`` says. The norms stay
where a branch goes: in the models that normalise after the sum they act on the residual stream. The
forward takes any number of heads as it is.
"""

import math

import torch
from torch import Tensor, nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.models.ssl.front import front_sites
from espnet_prune.sites import Site, SiteMap, count_parameters
from espnet_prune.sites.attention import TRANSFORMERS, HeadSite
from espnet_prune.sites.branch import BranchSite, GoneBranch
from espnet_prune.sites.feed_forward import FeedForwardSite
from espnet_prune.sites.unfit import refuse_float16, refuse_tied
from espnet_prune.sites.weights import Matrix

SAMPLE_RATE = 16000  # of all these models' recordings
LAYERS = tuple(
    f"{family}EncoderLayer{kind}"
    for family in ("Wav2Vec2", "Hubert")
    for kind in ("", "StableLayerNorm")
)
# attribute of a layer: attributes of its linears
MATRICES = {
    "attention": TRANSFORMERS.matrices,
    "feed_forward": ("intermediate_dense", "output_dense"),
}


class GoneAttention(nn.Module):
    """Stands where attention was: adds nothing."""

    def forward(self, hidden_states: Tensor, **unused) -> tuple[Tensor, None]:
        """(B, T, D) -> zeros (B, T, D), and no attention weights."""
        return torch.zeros_like(hidden_states), None


def ssl_encoder_of(model: nn.Module) -> nn.Module | None:
    """The wav2vec 2.0 or HuBERT model: feature extractor, projection and Transformer.

    Args:
        model: a model of transformers, with a CTC head or without, or an ESPnet model whose encoder
            holds one as ``model``.

    Returns:
        None for another model.
    """
    model = getattr(getattr(model, "encoder", None), "model", model)
    for name in ("wav2vec2", "hubert"):
        model = getattr(model, name, model)
    transformer = getattr(model, "encoder", None)
    found = hasattr(transformer, "pos_conv_embed") and hasattr(transformer, "layers")
    return model if found and hasattr(model, "feature_extractor") else None


def check_ssl(model: nn.Module) -> None:
    """ModelError unless this is a dense model whose Transformer's cutting rules are known."""
    encoder = model.encoder
    for block, layer in enumerate(encoder.layers):
        if type(layer).__name__ not in LAYERS:
            raise ModelError(
                f"block {block} is a {type(layer).__name__}, whose cutting rules aren't known; "
                f"expected one of {', '.join(LAYERS)}"
            )
        if getattr(layer, "adapter_layer", None) is not None:
            raise ModelError(f"block {block}: adapter layers can't be pruned; no adapter_attn_dim")
        gone = (GoneAttention, GoneBranch)
        full = encoder.config.num_attention_heads, encoder.config.intermediate_size
        if isinstance(layer.attention, gone) or isinstance(layer.feed_forward, gone):
            raise ModelError(f"block {block}: a model that is already cut can't be gated")
        if (layer.attention.num_heads, layer.feed_forward.intermediate_dense.out_features) != full:
            raise ModelError(f"block {block}: a model that is already cut can't be gated")
    refuse_float16(model)


def ssl_sites(model: nn.Module, reference_seconds: float) -> SiteMap:
    """All sites of a wav2vec 2.0 or HuBERT model and what they cost.

    Args:
        model: what ``ssl_encoder_of`` gives.
        reference_seconds: length of the utterance that MACs are counted for.

    Raises:
        ModelError: a layer whose cutting rules aren't known, one already cut, float16, or a matrix
            that is tied to another.
    """
    check_ssl(model)
    samples = round(reference_seconds * SAMPLE_RATE)
    frames = _frames(model.config, samples)
    front, terms = front_sites(model, samples)
    sites: list[Site] = [*front]
    branches: list[Site] = []
    for block, layer in enumerate(model.encoder.layers):
        attention, units = (f"block.{block}.{name}" for name in ("attention", "feed_forward"))
        heads = HeadSite(layer.attention, TRANSFORMERS, block, attention)
        dense = layer.feed_forward
        hidden = FeedForwardSite(dense.intermediate_dense, dense.output_dense, block, units)
        size, width = layer.attention.embed_dim, heads.width
        macs = 4 * frames * size * width + 2 * frames * frames * width
        sites += [heads, hidden]
        branches += [
            BranchSite(attention, block, heads.consumer, layer, {"attention": GoneAttention()}),
            BranchSite(units, block, hidden.consumer, layer, {"feed_forward": GoneBranch()}),
        ]
        terms += [
            CostTerm(heads.unit_parameters(), macs, (heads.name,)),
            CostTerm(size, 0, (attention,)),  # the last bias stands for its branch
            CostTerm(hidden.unit_parameters(), 2 * size * frames, (hidden.name,)),
            CostTerm(size, 0, (units,)),
        ]
    refuse_tied(model, sites)
    by_name = {site.name: site for site in sites + branches}
    total = count_parameters(model)
    counted = sum(t.parameters * math.prod(by_name[f].units for f in t.factors) for t in terms)
    terms.append(CostTerm(total - counted, _position_macs(model.config, frames), ()))
    return SiteMap(by_name, terms, model, reference_seconds)


def ssl_matrices(model: nn.Module) -> list[Matrix]:
    """The matrices of its attention and feed-forward parts.

    Raises:
        ModelError: as ``ssl_sites``.
    """
    check_ssl(model)
    return [
        (f"block.{block}.{part}.{name}", block, getattr(getattr(layer, part), name))
        for block, layer in enumerate(model.encoder.layers)
        for part, names in MATRICES.items()
        for name in names
    ]


def _frames(config, samples: int) -> int:
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def _position_macs(config, frames: int) -> int:
    """MACs of the grouped convolution; an even kernel gives a frame more, which is dropped."""
    kernel, size = config.num_conv_pos_embeddings, config.hidden_size
    outputs = frames + 1 - kernel % 2
    return outputs * kernel * size * size // config.num_conv_pos_embedding_groups
