"""A decoder's step as a graph: the tokens so far and the encoder's output give the next token.

Without a cache: each step computes all tokens again. That keeps a step a function of two inputs,
and costs little as long as transcripts are short beside the recording.
"""

import torch
from torch import Tensor, nn

from espnet_prune.models.graph_names import DECODER
from espnet_prune.models.graphs import CHECKED_TOKENS, Graph, Inputs, length_dimension, noise

MOST_TOKENS = 1024
MOST_FRAMES = 16000
HYPOTHESES = 3
NAMES = ("tokens", "encoded"), ("log_probs",)


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


def decoder_step(model: nn.Module) -> Graph:
    """The tokens so far of a few hypotheses to the next.

    Args:
        model: an ESPnetASRModel with such a decoder.
    """
    decoder = model.decoder
    size, tokens = model.encoder.output_size(), len(model.token_list)

    def example(length: int) -> Inputs:
        generator = noise(length)
        ids = torch.randint(tokens, (HYPOTHESES, length), generator=generator)
        return ids, torch.randn(1, 2 * length + 7, size, generator=generator)

    def expected(ids: Tensor, encoded: Tensor) -> Inputs:
        memory = encoded.expand(len(ids), -1, -1)
        return (decoder.batch_score(ids, [None] * len(ids), memory)[0],)

    shapes = (
        {0: torch.export.Dim("hypotheses", max=MOST_TOKENS), 1: length_dimension(2, MOST_TOKENS)},
        {1: torch.export.Dim("frames", max=MOST_FRAMES)},
    )
    graph = DecoderStep(decoder).eval()
    return Graph(DECODER, graph, *NAMES, shapes, CHECKED_TOKENS, example, expected)
