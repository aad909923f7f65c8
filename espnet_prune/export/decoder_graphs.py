"""A decoder's step as a graph: the tokens so far and the encoder's output give the next token.

Without a cache: each step computes all tokens again. That keeps a step a function of two inputs,
and costs little as long as transcripts are short beside the recording.
"""

import torch
from torch import Tensor, nn


class DecoderStep(nn.Module):
    """ESPnet's Transformer decoder.

    Args:
        decoder: a ``TransformerDecoder``, cut or not.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens: Tensor, encoded: Tensor) -> Tensor:
        """(N, L) tokens of N hypotheses, (1, T, D) -> log-probabilities (N, V)."""
        steps = torch.arange(tokens.shape[1])
        seen = (steps[None, :] <= steps[:, None])[None]
        memory = encoded.expand(tokens.shape[0], -1, -1)
        return self.decoder.forward_one_step(tokens, seen, memory)[0]


class WhisperDecoderStep(nn.Module):
    """Whisper's decoder; its output layer is the embedding.

    Args:
        decoder: transformers' ``WhisperDecoder``, cut or not.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens: Tensor, encoded: Tensor) -> Tensor:
        """(1, L) tokens, (1, T, D) -> log-probabilities (1, V)."""
        hidden = self.decoder(
            input_ids=tokens, encoder_hidden_states=encoded, use_cache=False
        ).last_hidden_state[:, -1]
        scores = nn.functional.linear(hidden, self.decoder.embed_tokens.weight)
        return torch.log_softmax(scores, dim=-1)
