"""Balanced distillation: what the teacher seldom says weighs more.

"FOSTER: Feature Boosting and Compression for Class-Incremental Learning", Wang et al. 2022 (arXiv
2204.04662; code G-U-N/ECCV22-FOSTER). From the code: the teacher's softened distribution is
multiplied, class by class, by (1 - beta) / (1 - beta^n) with n the class's number of samples,
scaled to a mean of 1, and normalised again. There n is known of every class of images. Ours: of
tokens, n is the mass of the teacher's distributions over all frames seen so far, at least 1; CTC's
blank, which has most frames, then no longer has most of the loss.
"""

import torch
from torch import Tensor, nn


class ClassBalance(nn.Module):
    """Counts what the teacher says, and weighs classes by it.

    Args:
        classes: V, number of tokens.
        beta: 0 <= beta < 1; the nearer to 1, the more the rare ones weigh. 0 weighs all alike.
    """

    def __init__(self, classes: int, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.float64))

    @torch.no_grad()
    def forward(self, logits: Tensor, valid: Tensor) -> Tensor:
        """Weights (V,), of mean 1, after these frames are counted; in training alone they are.

        Args:
            logits: the teacher's, (B, L, V).
            valid: (B, L), True on real frames or tokens.
        """
        if self.training:
            self.seen += torch.softmax(logits[valid].double(), dim=-1).sum(dim=0)
        weights = (1 - self.beta) / (1 - self.beta ** self.seen.clamp(min=1.0))
        return (weights / weights.mean()).to(torch.float32)
