"""What methods that read the calibration loss's gradients have to check in them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from espnet_prune.errors import TrainingError


def check_finite(values: Mapping[str, Tensor]) -> None:
    """TrainingError for the first site of whose gradients came a number that is not finite."""
    for name, found in values.items():
        if not torch.isfinite(found).all():
            raise TrainingError(
                f"{name}: the calibration loss has a gradient that is not finite; is an utterance "
                "too short for its transcript, or the model damaged?"
            )
