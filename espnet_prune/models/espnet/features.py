"""What ESPnet's encoders read: features of a front-end, or samples where there is none."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.front_end import subsampling_of
from espnet_prune.models.espnet.prompt import prompt_of, prompt_tokens

SAMPLE_RATE = 16000  # of ESPnet's front-end where ``fs`` isn't given
FRAMES_PER_SECOND = 100.0  # of an encoder by itself: a 10 ms shift
CHECK_TOKENS = 8


def run_encoder(model: nn.Module, feats: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, list]:
    """A whole model's encoder, with its CTC where it is conditioned on that, and any prompt.

    Args:
        model: an ESPnetASRModel.
        feats: (B, T, F), or samples where there is no front-end.
        lengths: (B,).

    Returns:
        (B, T', D), lengths (B,), and what intermediate CTC hears: indices, from 1, and (B, T', D).
    """
    asked = getattr(model.encoder, "interctc_use_conditioning", False)
    told = {**({"ctc": model.ctc} if asked else {}), **prompt_of(model, len(feats))}
    encoded, lengths, _ = model.encoder(feats, lengths, **told)
    encoded, heard = encoded if isinstance(encoded, tuple) else (encoded, [])
    return encoded, lengths, heard


def encoded_speech(model: nn.Module, speech: Tensor) -> Tensor:
    """What a whole model's encoder makes of samples (B, N) within -1 to 1: (B, T, D), of the sound.

    What intermediate CTC hears isn't among it, nor are positions of what OWSM-CTC is told.
    """
    told = prompt_tokens(model, len(speech))
    encoded, _ = model.encode(speech, torch.full((len(speech),), speech.shape[1]), **told)
    encoded = encoded[0] if isinstance(encoded, tuple) else encoded
    return model.frames(encoded, told["prefix"]) if told else encoded


def sample_rate_of(config: Mapping[str, Any] | None) -> int:
    """Rate in Hz that a model's front-end reads.

    Args:
        config: the model's configuration as ESPnet writes it; ``frontend_conf: fs`` is a number
            or a string such as ``8k``.

    Raises:
        ModelError: that value is no rate.
    """
    rate = ((config or {}).get("frontend_conf") or {}).get("fs", SAMPLE_RATE)
    if isinstance(rate, str):
        import humanfriendly  # which ESPnet reads this key with

        try:
            rate = humanfriendly.parse_size(rate)
        except humanfriendly.InvalidSize:
            pass
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or rate < 1:
        raise ModelError(f"frontend_conf: fs: {rate!r}; expected a rate in Hz, such as 8000 or 8k")
    return int(rate)


def least_samples(model: nn.Module) -> int:
    """Least number of samples that an ESPnetASRModel encodes.

    The front-end's padding mirrors half a window; the frames are then subsampled.
    """
    from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import check_short_utt

    front_end = model.frontend
    if front_end is None:
        return model.encoder.least() if hasattr(model.encoder, "least") else 1
    embed = getattr(model.encoder, "embed", None)
    subsampling = subsampling_of(embed)
    frames = max(check_short_utt(embed, 0)[1], 1 if subsampling is None else subsampling.reach)
    if hasattr(front_end, "least_samples"):
        return max(front_end.least_samples(), frames * front_end.hop_length)
    return max(front_end.stft.n_fft // 2 + 1, (frames - 1) * front_end.hop_length)


def features_of(model: nn.Module) -> tuple[float, int | None]:
    """Frames a second and width of an ESPnet model's features; None where no front-end tells."""
    frontend = getattr(model, "frontend", None)
    if frontend is None or not hasattr(frontend, "hop_length"):
        return FRAMES_PER_SECOND, None
    rate = sample_rate_of(getattr(model, "espnet_prune_config", None))
    return rate / frontend.hop_length, frontend.output_size()


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
def random_outputs(model: nn.Module, seconds: float, decoder: bool) -> Tensor:
    """What a model makes of ``random_input``, in one row: its encoder's output (2, T, D).

    Args:
        model: an ESPnetASRModel.
        seconds: the first utterance's length.
        decoder: whether its decoder's scores (2, L, V) of a few tokens follow, or a transducer's
            (2, T, L, V).
    """
    feats, lengths = random_input(model, seconds)
    encoded, lengths, _ = run_encoder(model, feats, lengths)
    if not decoder:
        return encoded.flatten()
    tokens = torch.arange(CHECK_TOKENS).repeat(2, 1) % model.vocab_size
    if getattr(model, "use_transducer_decoder", False):
        scores = model.joint_network(encoded[:, :, None], model.decoder(tokens)[:, None])
    else:
        scores = model.decoder(encoded, lengths, tokens, torch.tensor([CHECK_TOKENS] * 2))[0]
    return torch.cat([encoded.flatten(), scores.flatten()])
