"""The loss of a transducer, in torch alone (Graves 2012, "Sequence Transduction with RNNs").

A transducer gives, at frame t after u tokens, the probability of each token and of the blank, which
goes on to the next frame. The probability of a text is the sum over all paths from the first frame
to the blank of the last one. It is added up in the logarithm along diagonals of constant t + u: all
cells of one, of all utterances, at once. Gradients are torch's own.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.errors import ConfigError

NEVER = -1e30  # a logarithm of 0 that can be added to itself, and has no NaN in its gradient


def transducer_losses(
    logits: Tensor, targets: Tensor, frames: Tensor, tokens: Tensor, blank: int = 0
) -> Tensor:
    """Negative log-probabilities of texts, (B,).

    Args:
        logits: (B, T, U + 1, V), at each frame after each number of tokens, not normalised.
        targets: (B, U), token ids; what is behind a text's end is not read.
        frames: (B,), from 1 to T.
        tokens: (B,), from 0 to U.
        blank: the blank's id.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    batch = torch.arange(len(logits), device=logits.device)
    frames, tokens = frames.long(), tokens.long()
    norm = logits.logsumexp(dim=-1)
    ids = targets.long()[:, None, :, None].expand(-1, logits.shape[1], -1, -1)
    spoken = logits[:, :, :-1].gather(3, ids)[..., 0] - norm[:, :, :-1]
    silent = _diagonals(logits[..., blank] - norm)
    spoken = _diagonals(F.pad(spoken, (0, 1), value=NEVER))
    alpha = logits.new_full(silent.shape[:2], NEVER)
    alpha[:, 0] = 0.0
    alphas = [alpha]
    for diagonal in range(silent.shape[2] - 1):
        stay = alpha + silent[:, :, diagonal]
        move = F.pad((alpha + spoken[:, :, diagonal])[:, :-1], (1, 0), value=NEVER)
        alpha = torch.logaddexp(stay, move)
        alphas.append(alpha)
    last = frames - 1 + tokens
    return -(torch.stack(alphas, dim=2) + silent)[batch, tokens, last]


def _diagonals(lattice: Tensor) -> Tensor:
    """(B, T, W) -> (B, W, T + W - 1): cell (t, u) stands at (u, t + u), NEVER where none does."""
    width = lattice.shape[2]
    padded = F.pad(lattice.transpose(1, 2), (0, width), value=NEVER)
    return padded.flatten(1)[:, :-width].view(len(lattice), width, -1)


class TransducerLoss(nn.Module):
    """That loss with the interface of ``warprnnt_pytorch.RNNTLoss``, which ESPnet asks for.

    Args:
        blank: the blank's id.
        reduction: ``mean`` over the batch, ``sum`` or ``none``.
        fastemit_lambda: 0; no other is known.

    Raises:
        ConfigError: another reduction, or regularisation by FastEmit.
    """

    def __init__(
        self, blank: int = 0, reduction: str = "mean", fastemit_lambda: float = 0.0
    ) -> None:
        super().__init__()
        if fastemit_lambda:
            raise ConfigError(f"fastemit_lambda: {fastemit_lambda}; only 0 is known here")
        if reduction not in ("mean", "sum", "none"):
            raise ConfigError(f"reduction: {reduction}; expected mean, sum or none")
        self.blank = blank
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor, frames: Tensor, tokens: Tensor) -> Tensor:
        """The loss, () or (B,); arguments as of ``transducer_losses``."""
        losses = transducer_losses(logits, targets, frames, tokens, self.blank)
        return losses if self.reduction == "none" else getattr(losses, self.reduction)()
