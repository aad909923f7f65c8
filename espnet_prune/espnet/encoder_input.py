"""What a model's encoder reads: features of a front-end, or samples where there is none."""

import torch
from torch import Tensor, nn

SAMPLE_RATE = 16000


def input_shape(model: nn.Module, seconds: float) -> tuple[int, ...]:
    """Shape of the encoder's input for one utterance: (frames, width), or (samples,).

    Args:
        model: an ESPnetASRModel.
        seconds: the utterance's length.
    """
    samples = round(seconds * SAMPLE_RATE)
    if model.frontend is None:
        return (samples,)
    return round(samples / model.frontend.hop_length), model.frontend.output_size()


def random_input(model: nn.Module, seconds: float) -> tuple[Tensor, Tensor]:
    """Two utterances of noise, the second of three quarters of the length.

    Returns:
        (2, frames, width) or (2, samples); (2,), their lengths.
    """
    shape = input_shape(model, seconds)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([shape[0], shape[0] * 3 // 4])
    return torch.randn(2, *shape, generator=generator), lengths
