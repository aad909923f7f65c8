"""Graphs of ESPnet models with CTC, for export: samples or features in, log-probabilities out.

The filter bank is part of the graph, its short-time Fourier transform being a convolution, so that
ONNX Runtime needs neither ESPnet nor torch. The batch is one recording without padding.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.errors import ModelError
from espnet_prune.export.folder import SUBSAMPLING

FIRST_FRAME = 6  # the last that two convolutions of 3 frames at every second need for one


class EncoderGraph(nn.Module):
    """A Conformer encoder for one recording without padding.

    Args:
        encoder: ESPnet's ConformerEncoder, dense or cut.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        if encoder.interctc_layer_idx:
            raise ModelError("interctc_layer_idx: intermediate CTC can't be exported; leave it out")
        self.encoder = encoder

    def forward(self, feats: Tensor) -> Tensor:
        """(1, T, F) features -> (1, T', D)."""
        x = self._embed(feats)
        for block in self.encoder.encoders:
            x, _ = block(x, None)
        x = x[0] if isinstance(x, tuple) else x
        return self.encoder.after_norm(x) if self.encoder.normalize_before else x

    def _embed(self, feats: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        embed = self.encoder.embed
        if embed.out.in_features:
            return embed(feats, None)[0]
        # No channel is left: the last bias for every frame, counted by one feature of every fourth,
        # because ONNX has no reshape of empty tensors.
        frames = feats[:, FIRST_FRAME::SUBSAMPLING, :1]
        return embed.pos_enc(0 * frames + embed.out.bias)


class Output(nn.Module):
    """One output of a model of transformers.

    Args:
        model: it.
        name: of the output.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name

    def forward(self, values: Tensor) -> Tensor:
        """As the model's."""
        return self.model(values)[self.name]


class SpeechGraph(nn.Module):
    """Samples to CTC log-probabilities.

    Args:
        model: an ESPnetASRModel with CTC, the default front-end and, if any, global_mvn.

    Raises:
        ModelError: another front-end or normalisation; no CTC.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        _check(model)
        self.features = FilterBank(model.frontend)
        norm = model.normalize
        means, scales = (norm.norm_means, norm.norm_vars) if norm is not None else (False, False)
        self.register_buffer("mean", norm.mean.float() if means else None)  # kept in float64
        self.register_buffer("std", norm.std.float() if scales else None)
        self.encoder = EncoderGraph(model.encoder)
        self.ctc = model.ctc.ctc_lo

    def forward(self, speech: Tensor) -> tuple[Tensor, Tensor]:
        """(1, samples) within -1 to 1 -> log-probabilities (1, T', V), encoded (1, T', D)."""
        feats = self.features(speech)
        feats = feats if self.mean is None else feats - self.mean
        feats = feats if self.std is None else feats / self.std
        encoded = self.encoder(feats)
        return torch.log_softmax(self.ctc(encoded), dim=-1), encoded


class SslGraph(nn.Module):
    """Samples to CTC log-probabilities by a wav2vec 2.0 or HuBERT model.

    Args:
        model: an ESPnetASRModel whose encoder is an ``SslEncoder``, with CTC.

    Raises:
        ModelError: no CTC; parts around the encoder.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        from espnet_prune.models.ssl.encoder import EPSILON

        _check_parts(model)
        self.epsilon = EPSILON
        self.encoder = model.encoder.model
        self.ctc = model.ctc.ctc_lo

    def forward(self, speech: Tensor) -> tuple[Tensor, Tensor]:
        """(1, samples) within -1 to 1 -> log-probabilities (1, T, V), encoded (1, T, D)."""
        centred = speech - speech.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        encoded = self.encoder(centred / (variance + self.epsilon).sqrt()).last_hidden_state
        return torch.log_softmax(self.ctc(encoded), dim=-1), encoded


class FilterBank(nn.Module):
    """ESPnet's default front-end with its Fourier transform as a convolution.

    Args:
        frontend: ESPnet's DefaultFrontend.
    """

    def __init__(self, frontend: nn.Module) -> None:
        super().__init__()
        stft, logmel = frontend.stft, frontend.logmel
        self.hop = stft.hop_length
        self.padding = stft.n_fft // 2 if stft.center else 0
        name = stft.window or "ones"
        width = stft.win_length
        window = torch.ones(width) if name == "ones" else getattr(torch, f"{name}_window")(width)
        kernel = fourier_kernel(stft.n_fft, window)
        kernel = kernel / math.sqrt(stft.n_fft) if stft.normalized else kernel
        self.register_buffer("kernel", kernel)
        self.register_buffer("mel", logmel.melmat)
        self.base = 1.0 if logmel.log_base is None else math.log(logmel.log_base)

    def forward(self, speech: Tensor) -> Tensor:
        """(1, samples) -> (1, T, F)."""
        padded = F.pad(speech[:, None], (self.padding, self.padding), mode="reflect")
        parts = F.conv1d(padded, self.kernel, stride=self.hop).transpose(1, 2)
        real, imaginary = parts.chunk(2, dim=-1)
        energy = (real.square() + imaginary.square()) @ self.mel
        return energy.clamp(min=1e-10).log() / self.base  # ESPnet's floor


def fourier_kernel(size: int, window: Tensor) -> Tensor:
    """Windowed cosines and sines, (2 * bins, 1, size), as torch.stft has them.

    Args:
        size: of the transform, in samples.
        window: (width,), put in the middle.
    """
    left = (size - len(window)) // 2
    window = F.pad(window.double(), (left, size - len(window) - left))
    steps = torch.arange(size, dtype=torch.float64)
    angles = 2 * math.pi / size * torch.outer(torch.arange(size // 2 + 1.0).double(), steps)
    return (torch.cat([torch.cos(angles), -torch.sin(angles)]) * window)[:, None].float()


def _check(model: nn.Module) -> None:
    front_end, norm = model.frontend, model.normalize
    stock = getattr(front_end, "frontend_type", None) == "default" and front_end.stft is not None
    enhancement = getattr(front_end, "frontend", None)
    enhanced = any(getattr(enhancement, name, False) for name in ("use_wpe", "use_beamformer"))
    if not stock or enhanced or not front_end.stft.onesided:
        raise ModelError(
            "frontend: only `default` on samples, without enhancement, can be exported; use the "
            "model in torch (espnet-prune transcribe --model)"
        )
    if norm is not None and type(norm).__name__ != "GlobalMVN":
        raise ModelError(f"normalize: {type(norm).__name__}; only global_mvn can be exported")
    _check_parts(model)


def _check_parts(model: nn.Module) -> None:
    if model.ctc is None:
        raise ModelError("the model has no CTC (ctc_weight 0), which the exported graph ends with")
    for name in ("preencoder", "postencoder"):
        if getattr(model, name, None) is not None:
            raise ModelError(f"{name}: it can't be exported yet; leave it out")
