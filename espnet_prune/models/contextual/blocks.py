"""What ESPnet's contextual-block encoders share: pieces of a recording, each with a context.

A recording longer than ``block_size`` positions is cut into overlapping pieces of that length; each
layer sees a piece between two context vectors, of the piece before and its own, and hands its own
on to the next layer's next piece (Tsunoo et al. 2019, arXiv 1910.07204). So every unit costs as
much as the pieces have positions. Pieces are called segments here, because layers are blocks.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from espnet_prune.models.espnet.encoder_family import EspnetEncoder
from espnet_prune.models.espnet.features import run_encoder
from espnet_prune.models.espnet.options import feed_forward_options, input_options
from espnet_prune.models.espnet.stack import hidden_states
from espnet_prune.models.family import Encoded

CONTEXTS = 2  # vectors beside the positions of a segment
BLOCK_OPTIONS = ("block_size", "hop_size", "look_ahead", "init_average", "ctx_pos_enc")


def segments(encoder: nn.Module, positions: int) -> tuple[int, int]:
    """Length and number of the segments that so many positions are encoded in."""
    if encoder.block_size == 0 or positions <= encoder.block_size:
        return positions, 1
    past = encoder.block_size - encoder.hop_size - encoder.look_ahead
    number = math.ceil((positions - past - encoder.look_ahead) / encoder.hop_size)
    return encoder.block_size + CONTEXTS, number


def in_time(encoder: nn.Module, state: Tensor, positions: int) -> Tensor:
    """What a layer gives by segment (B, segments, block_size + 2, D), in time (B, T, D)."""
    if state.dim() == 3:
        return state
    first = encoder.block_size - encoder.look_ahead
    offset = first - encoder.hop_size + 1
    number = state.shape[1]
    middle = [state[:, k, offset : offset + encoder.hop_size] for k in range(1, number - 1)]
    parts = [state[:, 0, 1 : first + 1], *middle, state[:, number - 1, offset:-1]]
    return torch.cat(parts, dim=1)[:, :positions]


def mixed_with_contexts(z: Tensor, inputs: tuple, output: tuple) -> tuple:
    """A layer's output y becomes z y + (1 - z) x, and so do the contexts that it hands on."""
    before, (after, mask, infers, past, following, is_short, index) = inputs[0], output
    z = z.to(after.dtype)
    made = z * after + (1 - z) * before
    if not infers and following is not None and index < following.shape[2]:
        following[:, 0, index] = made[:, 0, -1]
        following[:, 1:, index] = made[:, :-1, -1]
    return made, mask, infers, past, following, is_short, index


class ContextualEncoder(EspnetEncoder):
    """A contextual-block encoder of ESPnet."""

    @abstractmethod
    def more_options(self, layer: nn.Module) -> dict:
        """Those that not both kinds have, read off the first layer."""

    def about_stack(self, encoder: nn.Module) -> dict:
        """Its segments; the last layer always stays, since the contexts pass by it."""
        return {
            "segments": lambda positions: segments(encoder, positions),
            "mix": mixed_with_contexts,
            "staying": {len(encoder.encoders) - 1},
        }

    def options(self, encoder: nn.Module) -> dict:
        layer = encoder.encoders[0]
        return {
            **input_options(encoder),
            **feed_forward_options(layer.feed_forward),
            **self.more_options(layer),
            **{name: getattr(encoder, name) for name in BLOCK_OPTIONS},
            "attention_heads": layer.self_attn.h,
            "attention_dropout_rate": float(layer.self_attn.dropout_rate),
            "positional_dropout_rate": float(encoder.pos_enc.dropout.p),
            "dropout_rate": float(layer.dropout.p),
            "num_blocks": len(encoder.encoders),
            "normalize_before": layer.normalize_before,
        }

    def encode(self, model: nn.Module, feats: Tensor, lengths: Tensor) -> Encoded:
        encoder = model.encoder
        (output, lengths, _), states = hidden_states(
            encoder, lambda: run_encoder(model, feats, lengths)
        )
        hidden = [in_time(encoder, state, output.shape[1]) for state in states]
        return Encoded(output, lengths, hidden)

    def stream_graph(self, model: nn.Module) -> nn.Module:
        from espnet_prune.models.contextual.graph import ContextualGraph

        encoder = self.encoder_of(model)
        return ContextualGraph(encoder, encoder.block_size + CONTEXTS)
