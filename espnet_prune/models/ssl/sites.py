"""Sites of wav2vec 2.0, HuBERT and their kin, as transformers builds them.

Found by attributes; nothing of transformers is imported. The feature extractor's channels are those
of ``front``; the rest are the blocks, cut as ``models.huggingface.blocks`` says. WavLM's first one
stays, since it makes the bias of positions for all. A Conformer has the convolution that makes
positions elsewhere, but doesn't run it.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from torch import nn

from espnet_prune.models.huggingface.blocks import (
    BlockKind,
    GoneAttention,
    attention_part,
    block_matrices,
    check_blocks,
    encoder_sites,
    feed_forward_part,
)
from espnet_prune.models.huggingface.conformer import CONFORMER
from espnet_prune.models.ssl.front import front_sites
from espnet_prune.models.ssl.gated_attention import gated_attention_part, number_heads
from espnet_prune.sites import SiteMap
from espnet_prune.sites.attention import TRANSFORMERS
from espnet_prune.sites.unfit import refuse_float16
from espnet_prune.sites.weights import Matrix

SAMPLE_RATE = 16000  # of all these models' recordings
CORES = (
    "wav2vec2",
    "hubert",
    "wavlm",
    "wav2vec2_conformer",
)  # what models with an output layer call the rest

FEED_FORWARD = ("intermediate_dense", "output_dense")
_feed_forward = partial(feed_forward_part, first=FEED_FORWARD[0], second=FEED_FORWARD[1])
_MATRICES = {"attention": TRANSFORMERS.matrices, "feed_forward": FEED_FORWARD}


def _transformer(attention) -> BlockKind:
    """Blocks whose norms act on the sum, or, as in the large models, stay in the same way."""
    branches = {
        "attention": ("attention", None, attention),
        "feed_forward": ("feed_forward", None, _feed_forward),
    }
    return BlockKind(branches, _MATRICES)


PLAIN = _transformer(partial(attention_part, names=TRANSFORMERS))
GATED = _transformer(gated_attention_part)
KINDS: Mapping[str, BlockKind] = MappingProxyType(
    {
        f"{family}EncoderLayer{norm}": kind
        for family, kind in (("Wav2Vec2", PLAIN), ("Hubert", PLAIN), ("WavLM", GATED))
        for norm in ("", "StableLayerNorm")
    }
    | {"Wav2Vec2ConformerEncoderLayer": CONFORMER}
)


def ssl_encoder_of(model: nn.Module) -> nn.Module | None:
    """The model without an output layer: feature extractor, projection and blocks.

    Args:
        model: a model of transformers, with a CTC head or without, or an ESPnet model whose encoder
            holds one as ``model``.

    Returns:
        None for another model.
    """
    model = getattr(getattr(model, "encoder", None), "model", model)
    for name in CORES:
        model = getattr(model, name, model)
    transformer = getattr(model, "encoder", None)
    found = hasattr(transformer, "pos_conv_embed") and hasattr(transformer, "layers")
    return model if found and hasattr(model, "feature_extractor") else None


def ssl_sites(model: nn.Module, reference_seconds: float) -> SiteMap:
    """All sites of such a model and what they cost.

    Args:
        model: what ``ssl_encoder_of`` gives.
        reference_seconds: length of the utterance that MACs are counted for.

    Raises:
        ModelError: a layer whose cutting rules aren't known, one already cut, float16, or a matrix
            that is tied to another.
    """
    layers = model.encoder.layers
    kind = check_blocks(layers, KINDS, model.config.num_hidden_layers)
    samples = round(reference_seconds * SAMPLE_RATE)
    frames = _frames(model.config, samples)
    return encoder_sites(
        model,
        layers,
        kind,
        front_sites(model, samples),
        frames,
        reference_seconds,
        0 if kind is CONFORMER else _position_macs(model.config, frames),  # which it doesn't run
        staying=(0,) if kind is GATED else (),
    )


def ssl_matrices(model: nn.Module) -> list[Matrix]:
    """The matrices of its attention and feed-forward parts, all of them called as layers.

    Raises:
        ModelError: as ``ssl_sites``.
    """
    refuse_float16(model)
    layers = model.encoder.layers
    kind = check_blocks(layers, KINDS, model.config.num_hidden_layers)
    call_layers(model)
    return block_matrices(layers, kind)


def call_layers(model: nn.Module) -> None:
    """Lets WavLM's attention call its layers, in place, where it would pass on their weights."""
    for layer in model.encoder.layers:
        gated = KINDS.get(type(layer).__name__) is GATED
        if gated and not isinstance(layer.attention, GoneAttention):
            number_heads(layer.attention)


def _frames(config, samples: int) -> int:
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def _position_macs(config, frames: int) -> int:
    """MACs of the grouped convolution; an even kernel gives a frame more, which is dropped."""
    kernel, size = config.num_conv_pos_embeddings, config.hidden_size
    outputs = frames + 1 - kernel % 2
    return outputs * kernel * size * size // config.num_conv_pos_embedding_groups
