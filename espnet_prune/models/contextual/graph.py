"""The graph of a contextual-block encoder, for a recording that is all there.

ESPnet fills the segments in loops over their number, which a graph would fix at one length. Here
every frame's place is reckoned, so that one graph takes recordings of any length: those of one
segment, which have no contexts, and longer ones.
"""

from types import MethodType

import torch
from torch import Tensor, nn

from espnet_prune.models.espnet.encoder_graphs import EncoderGraph


class ContextualGraph(EncoderGraph):
    """A contextual-block encoder for one recording without padding.

    Args:
        encoder: dense or cut.
        size: positions of a segment, its contexts among them.
    """

    def __init__(self, encoder: nn.Module, size: int) -> None:
        super().__init__(encoder)
        seen = torch.zeros(1, size, size)
        seen[:, 1:, :-1] = 1  # all but the context before looks at all but the segment's own
        self.register_buffer("seen", seen, persistent=False)
        for module in self.encoder.modules():
            if hasattr(module, "forward_attention"):
                module.forward_attention = MethodType(_attend, module)

    def forward(self, feats: Tensor) -> Tensor:
        """(1, T, F) features -> (1, T', D)."""
        x = self._embed(feats)
        if not self.encoder.block_size:
            return self._normed(self._as_one(x)[None])
        longer = x.shape[1] > self.encoder.block_size
        return self._normed(torch.cond(longer, self._in_segments, self._as_one, (x,))[None])

    def _as_one(self, x: Tensor) -> Tensor:
        x = self.encoder.pos_enc(x)
        for layer in self.encoder.encoders:
            x = layer(x, None)[0]
        return x[0]

    def _in_segments(self, x: Tensor) -> Tensor:
        encoder, positions = self.encoder, x.shape[1]
        size, hop = encoder.block_size, encoder.hop_size
        number = (positions - size + hop - 1) // hop + 1
        places = hop * torch.arange(number, device=x.device)[:, None] + torch.arange(size)
        inside = (places < positions)[..., None].to(x.dtype)
        places = places.clamp(max=positions - 1)
        contexts = (x[0, places] * inside).sum(1) / inside.sum(1)
        if encoder.ctx_pos_enc:
            contexts = encoder.pos_enc(contexts[None])[0]
        frames = encoder.pos_enc(x)[0, places] * inside
        before = torch.cat([contexts[:1], contexts[:-1]])
        x = torch.cat([before[:, None], frames, contexts[:, None]], dim=1)
        for index, layer in enumerate(encoder.encoders):
            if index:  # each segment gets the context of the one before it
                x = torch.cat([torch.cat([x[:1, -1:], x[:-1, -1:]]), x[:, 1:]], dim=1)
            x = layer(x, self.seen.expand(len(x), -1, -1))[0]
        return self._in_time(x, positions)

    def _in_time(self, x: Tensor, positions: int) -> Tensor:
        """Segments (N, block_size + 2, D) -> (T, D)."""
        encoder = self.encoder
        first = encoder.block_size - encoder.look_ahead  # so many are of the first segment
        times = torch.arange(positions, device=x.device)
        behind = (times - first).clamp(min=0)
        later = (behind // encoder.hop_size + 1).clamp(max=x.shape[0] - 1)
        segment = torch.where(times < first, 0, later)
        return x[segment, 1 + times - encoder.hop_size * segment]


def _attend(self: nn.Module, value: Tensor, scores: Tensor, mask: Tensor | None) -> Tensor:
    """ESPnet's ``forward_attention``, but for the last map of weights, which no graph can keep."""
    hidden = None if mask is None else mask[:, None] == 0
    if hidden is not None:
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    weights = weights if hidden is None else weights.masked_fill(hidden, 0.0)
    return self.linear_out((weights @ value).transpose(1, 2).flatten(2))
