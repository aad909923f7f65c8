"""A Transformer decoder's step in the beam search, nothing projected twice.

ESPnet's step projects the encoder's output to keys and values again in every layer, for every
hypothesis, and all earlier tokens besides, which is most of the time of a joint search. Here the
encoder's output is projected once an utterance and each token once; all hypotheses of a step are
one product with the same keys. The numbers are those of ESPnet's own step, up to float rounding.
Decoders that were cut may have other widths in every layer, and branches that are gone.
"""

import math

import torch
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
from espnet2.legacy.nets.pytorch_backend.transformer.attention import MultiHeadedAttention
from espnet2.legacy.nets.pytorch_backend.transformer.decoder_layer import DecoderLayer
from espnet2.legacy.nets.pytorch_backend.transformer.embedding import PositionalEncoding
from espnet2.legacy.nets.scorer_interface import BatchScorerInterface
from torch import Tensor, nn

from espnet_prune.sites.branch import GoneBranch

DECODER = "decoder"  # ESPnet's name of this scorer


def speed_up(search: nn.Module) -> bool:
    """Puts ``CachedDecoder`` into a beam search in place of its decoder.

    Args:
        search: ESPnet's ``BatchBeamSearch``, of one utterance at a time.

    Returns:
        Whether the decoder is of a kind that this module knows; else the search stays as it is.
    """
    decoder = search.full_scorers.get(DECODER)
    if not isinstance(decoder, TransformerDecoder) or not _known(decoder):
        return False
    cached = CachedDecoder(decoder)
    search.full_scorers[DECODER] = cached
    search.scorers[DECODER] = cached
    return True


class CachedDecoder(BatchScorerInterface):
    """Scores the next token of all hypotheses of one utterance.

    A hypothesis's state is (L, W): of its L tokens the keys, then the values, of one layer's
    self-attention after the other.

    Args:
        decoder: a pre-norm Transformer decoder in evaluation mode.
    """

    def __init__(self, decoder: TransformerDecoder) -> None:
        self.decoder = decoder
        self.memory: list[tuple[Tensor, Tensor] | None] = []
        self.widths = [_width(layer.self_attn) for layer in decoder.decoders]

    @torch.no_grad()
    def batch_score(
        self, ys: Tensor, states: list[Tensor | None], xs: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Log-probabilities of the next token.

        Args:
            ys: (N, L) token ids of N hypotheses.
            states: states of each hypothesis, None before the first token.
            xs: (N, T, D), the same encoder output for all.

        Returns:
            Scores (N, V), and the new states.
        """
        if states[0] is None:
            self.memory = [self._project(layer.src_attn, xs[0]) for layer in self.decoder.decoders]
            past = xs.new_zeros(len(ys), 0, 2 * sum(self.widths))
        else:
            past = torch.stack(states)
        first = past.shape[1]
        if ys.shape[1] - first != 1:  # a primer of several tokens: one by one
            for length in range(first + 1, ys.shape[1]):
                past = self._step(ys[:, :length], past)[1]
        scores, past = self._step(ys, past)
        return scores, list(past)

    def _step(self, ys: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        embedding, positions = self.decoder.embed
        x = embedding(ys[:, -1]) * positions.xscale
        positions.extend_pe(x.new_empty(1, ys.shape[1]))  # looks at length, type and device alone
        x = x + positions.pe[0, ys.shape[1] - 1]
        new = []
        for layer, own, memory in zip(
            self.decoder.decoders,
            past.split([2 * width for width in self.widths], dim=2),
            self.memory,
            strict=True,
        ):
            if own.shape[2]:
                y = layer.norm1(x)
                token = [layer.self_attn.linear_k(y), layer.self_attn.linear_v(y)]
                own = torch.cat([own, torch.cat(token, dim=1)[:, None]], dim=1)  # (N, L, 2 W)
                new.append(own)
                x = x + self._attend_own(layer.self_attn, y, own)
            if memory is not None:
                x = x + self._attend_all(layer.src_attn, layer.norm2(x), *memory)
            if not isinstance(layer.feed_forward, GoneBranch):
                x = x + layer.feed_forward(layer.norm3(x))
        logits = self.decoder.output_layer(self.decoder.after_norm(x))
        past = torch.cat(new, dim=2) if new else past.new_zeros(*ys.shape, 0)
        return torch.log_softmax(logits, dim=-1), past

    @staticmethod
    def _project(attention: nn.Module, encoded: Tensor) -> tuple[Tensor, Tensor] | None:
        """Keys (H, d_k, T) and values (H, T, d_k) of the encoder's output (T, D), if any."""
        if isinstance(attention, GoneBranch):
            return None
        heads, width = attention.h, attention.d_k
        keys = attention.linear_k(encoded).view(-1, heads, width)
        values = attention.linear_v(encoded).view(-1, heads, width)
        return keys.permute(1, 2, 0).contiguous(), values.transpose(0, 1).contiguous()

    @staticmethod
    def _attend_all(
        attention: MultiHeadedAttention, y: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Cross attention of (N, D): the hypotheses are the rows of one product a head."""
        q = attention.linear_q(y).view(len(y), attention.h, attention.d_k).transpose(0, 1)
        weights = torch.softmax(q @ keys / math.sqrt(attention.d_k), dim=-1)  # (H, N, T)
        return attention.linear_out((weights @ values).transpose(0, 1).reshape(len(y), -1))

    @staticmethod
    def _attend_own(attention: MultiHeadedAttention, y: Tensor, own: Tensor) -> Tensor:
        """Attention of each hypothesis's last token (N, D) to its own tokens (N, L, 2 H d_k)."""
        shape = (len(y), -1, attention.h, attention.d_k)
        q = attention.linear_q(y).view(shape).transpose(1, 2)
        keys, values = (part.reshape(shape).transpose(1, 2) for part in own.chunk(2, dim=2))
        weights = torch.softmax(q @ keys.transpose(2, 3) / math.sqrt(attention.d_k), dim=-1)
        return attention.linear_out((weights @ values).transpose(1, 2).reshape(len(y), -1))


def _width(attention: nn.Module) -> int:
    """Numbers of a token's keys; 0 where attention is gone."""
    return 0 if isinstance(attention, GoneBranch) else attention.h * attention.d_k


def _known(decoder: TransformerDecoder) -> bool:
    """Whether the step above is this decoder's."""
    embed = decoder.embed
    return (
        not decoder.training
        and decoder.normalize_before
        and decoder.output_layer is not None
        and len(embed) == 2
        and isinstance(embed[0], nn.Embedding)
        and type(embed[1]) is PositionalEncoding
        and all(_known_layer(layer) for layer in decoder.decoders)
    )


def _known_layer(layer: nn.Module) -> bool:
    return (
        type(layer) is DecoderLayer
        and layer.normalize_before
        and not layer.concat_after
        and layer.sequential_attn is None
        and all(_known_attention(attention) for attention in (layer.self_attn, layer.src_attn))
    )


def _known_attention(attention: nn.Module) -> bool:
    return isinstance(attention, GoneBranch) or (
        type(attention) is MultiHeadedAttention
        and not attention.use_flash_attn
        and isinstance(attention.q_norm, nn.Identity)
    )
