"""What a model's encoder reads: features of a front-end, or samples where there is none."""

import torch
from torch import Tensor, nn

from espnet_prune.models.espnet.sample_rate import sample_rate_of
from espnet_prune.models.whisper.sites import is_whisper

CHECK_TOKENS = 8


def input_shape(model: nn.Module, seconds: float) -> tuple[int, ...]:
    """Shape of the encoder's input for one utterance: (frames, width), or (samples,).

    Args:
        model: an ESPnetASRModel.
        seconds: the utterance's length.
    """
    rate = sample_rate_of(getattr(model, "espnet_prune_config", None))
    samples = round(seconds * rate)
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


@torch.no_grad()
def random_outputs(model: nn.Module, seconds: float, decoder: bool = False) -> Tensor:
    """What a model makes of ``random_input``: its encoder's output (2, T, D).

    Of Whisper, the decoder's scores (2, L, V) of a few tokens; with ``decoder``, the encoder's
    output and those scores in one row.
    """
    feats, lengths = random_input(model, seconds)
    encoded, lengths, _ = model.encoder(feats, lengths)
    whisper = is_whisper(getattr(model, "whisper", model))
    if not whisper and not decoder:
        return encoded
    tokens = torch.arange(CHECK_TOKENS).repeat(2, 1) % model.vocab_size
    scores = model.decoder(encoded, lengths, tokens, torch.tensor([CHECK_TOKENS] * 2))[0]
    return scores if whisper else torch.cat([encoded.flatten(), scores.flatten()])
