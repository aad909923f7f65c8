"""Options of ESPnet's encoders, read off their modules: those that build another one like it."""

from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.front_end import (
    check_input_layer,
    features_that_fit,
    subsampling_of,
)
from espnet_prune.models.espnet.parts import ATTENTIONS, FEED_FORWARDS

POSITIONS = {
    "PositionalEncoding": "abs_pos",
    "ScaledPositionalEncoding": "scaled_abs_pos",
    "LegacyRelPositionalEncoding": "rel_pos",
    "RelPositionalEncoding": "rel_pos",
}
# class of attention: ESPnet's name of it, and of its relative positions
ATTENTION_NAMES = {
    "MultiHeadedAttention": ("selfattn", "latest"),
    "LegacyRelPositionMultiHeadedAttention": ("rel_selfattn", "legacy"),
    "RelPositionMultiHeadedAttention": ("rel_selfattn", "latest"),
}
FEED_FORWARD_NAMES = dict(zip(FEED_FORWARDS, ("linear", "conv1d", "conv1d-linear"), strict=True))


def named(part: nn.Module | None, known: dict, what: str):
    """What a part's class is called in ESPnet's options.

    Raises:
        ModelError: a class that isn't known, or a part that was cut.
    """
    name = type(part).__name__
    if name not in known:
        raise ModelError(
            f"{what}: {name} isn't known; known are {', '.join(known)}. One is added in "
            "espnet_prune/models/espnet/options.py"
        )
    return known[name]


def input_options(encoder: nn.Module) -> dict:
    """``input_size``, or all that fit, ``input_layer`` and ``positional_dropout_rate``.

    Raises:
        ModelError: a front-end that isn't known.
    """
    embed = encoder.embed
    check_input_layer(embed)
    fitting = features_that_fit(embed) or [encoder.output_size()]
    options = {
        "input_size": fitting if len(fitting) > 1 else fitting[0],
        "output_size": encoder.output_size(),
        "input_layer": _input_layer(embed),
    }
    positions = position_encoding(encoder)
    if positions is not None:
        options["positional_dropout_rate"] = float(positions.dropout.p)
    return options


def _input_layer(embed: nn.Module | None) -> str | None:
    front_end = subsampling_of(embed)
    if front_end is not None:
        return front_end.input_layer
    if not isinstance(embed, nn.Sequential) or len(embed) == 1:
        return None
    return "linear" if isinstance(embed[0], nn.Linear) else "wav2vec"


def position_encoding(encoder: nn.Module) -> nn.Module | None:
    """The encoding of positions in a front-end, if there is one.

    Raises:
        ModelError: it isn't known.
    """
    embed = encoder.embed
    if isinstance(embed, nn.Sequential):
        found = next((layer for layer in embed if hasattr(layer, "extend_pe")), None)
    else:
        found = getattr(embed, "pos_enc", None)
    if found is not None:
        named(found, POSITIONS, "pos_enc_layer_type")
    return found


def attention_options(encoder: nn.Module, attention: nn.Module, type_key: str) -> dict:
    """Heads, kind of attention and of positions, and rates.

    Args:
        encoder: it.
        attention: attention of its first block.
        type_key: what the encoder's option of the kind is called.
    """
    kind, relative = named(attention, ATTENTION_NAMES, "attention")
    positions = position_encoding(encoder)
    options = {
        "attention_heads": attention.h,
        "attention_dropout_rate": float(attention.dropout_rate),
        type_key: kind,
        "rel_pos_type": relative,
        "use_sdpa": attention.use_sdpa,
    }
    if positions is not None:
        options["pos_enc_layer_type"] = named(positions, POSITIONS, "positions")
    if kind == "selfattn":
        options["qk_norm"] = not isinstance(attention.q_norm, nn.Identity)
    elif relative == "latest":
        options["zero_triu"] = attention.zero_triu
    assert type(attention).__name__ in ATTENTIONS
    return options


def feed_forward_options(part: nn.Module) -> dict:
    """``linear_units`` and what kind of layers make them."""
    kind = named(part, FEED_FORWARD_NAMES, "feed-forward")
    options = {"linear_units": len(part.w_1.weight), "positionwise_layer_type": kind}
    if kind != "linear":
        options["positionwise_conv_kernel_size"] = part.w_1.kernel_size[0]
    return options


def interctc_options(encoder: nn.Module) -> dict:
    """``interctc_layer_idx`` and whether it conditions what follows."""
    return {
        "interctc_layer_idx": list(encoder.interctc_layer_idx),
        "interctc_use_conditioning": encoder.interctc_use_conditioning,
    }


def gating_options(gate: nn.Module) -> dict:
    """Those that all gating MLPs have; ``gate`` is the gating unit."""
    return {
        "cgmlp_linear_units": 2 * gate.norm.normalized_shape[0],
        "use_linear_after_conv": gate.linear is not None,
        "gate_activation": activation_name(gate.act),
    }


def activation_name(activation: nn.Module) -> str:
    """ESPnet's name of an activation."""
    name = type(activation).__name__.lower()
    return "swish" if name == "silu" else name
