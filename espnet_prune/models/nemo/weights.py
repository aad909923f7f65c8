"""NeMo's names of weights as ESPnet's; every one of them, and none is made up."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from espnet_prune.errors import ModelError

# of a block, NeMo's beginning of a name: ESPnet's
BLOCK = {
    "feed_forward1.linear1": "feed_forward_macaron.w_1",
    "feed_forward1.linear2": "feed_forward_macaron.w_2",
    "feed_forward2.linear1": "feed_forward.w_1",
    "feed_forward2.linear2": "feed_forward.w_2",
    "norm_feed_forward1": "norm_ff_macaron",
    "norm_feed_forward2": "norm_ff",
    "norm_self_att": "norm_mha",
    "norm_conv": "norm_conv",
    "norm_out": "norm_final",
    "self_attn": "self_attn",
    "conv.batch_norm": "conv_module.norm",
    "conv": "conv_module",
}
FRONT, LAYERS = "encoder.pre_encode.", "encoder.layers."
OUTPUT = "decoder.decoder_layers.0."
FEATURES = "preprocessor."  # buffers that the configuration gives anew
# of <sos/eos>, which NeMo's CTC doesn't have: a logit that is never the best, nor felt by the rest
NEVER = -50.0


def espnet_weights(state: Mapping[str, Tensor], scaled: bool, where: str) -> dict[str, Tensor]:
    """The weights of an ESPnetASRModel, float32.

    Args:
        state: NeMo's.
        scaled: whether NeMo multiplies the front-end's output by the root of its width, as ESPnet
            always does; if not, the last layer before is divided by it.
        where: the archive, for errors.

    Raises:
        ModelError: a name that isn't known, or no tensor.
    """
    found = {}
    for name, value in state.items():
        if name.startswith(FEATURES):
            continue
        if not isinstance(value, Tensor):
            raise ModelError(
                f"{where}: model_weights.ckpt: {name}: a tensor was expected, not a value of type "
                f"{type(value).__name__}; take the archive as NeMo's save_to wrote it"
            )
        value = value.float() if value.is_floating_point() else value
        if name.startswith(OUTPUT):
            found[f"ctc.ctc_lo.{name.removeprefix(OUTPUT)}"] = _output(value)
        else:
            found[_encoder_name(name, where)] = value
    if not scaled:
        for name in {"encoder.embed.out.weight", "encoder.embed.out.bias"} & found.keys():
            found[name] = found[name] / math.sqrt(len(found[name]))
    return found


def _encoder_name(name: str, where: str) -> str:
    if name.startswith(FRONT):
        return f"encoder.embed.{name.removeprefix(FRONT)}"
    block, _, inner = name.removeprefix(LAYERS).partition(".")
    for theirs, ours in BLOCK.items():
        if name.startswith(LAYERS) and inner.startswith(f"{theirs}."):
            return f"encoder.encoders.{block}.{ours}.{inner.removeprefix(f'{theirs}.')}"
    raise ModelError(
        f"{where}: model_weights.ckpt: the weight {name} isn't known; only a Conformer with CTC "
        "as NeMo's examples configure it can be imported"
    )


def _output(value: Tensor) -> Tensor:
    """Rows of CTC's layer: the blank first, the pieces, and one for ``<sos/eos>``."""
    value = value[..., 0] if value.dim() == 3 else value  # a convolution of width 1
    last = torch.zeros_like(value[:1]) if value.dim() == 2 else torch.full_like(value[:1], NEVER)
    return torch.cat([value[-1:], value[:-1], last])
