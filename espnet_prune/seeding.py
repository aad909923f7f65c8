"""One place that seeds every random number generator."""

import random


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch (CPU and CUDA), and asks cuDNN for determinism."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
