"""Graphs of ESPnet models with CTC, for export: samples in, log-probabilities out.

The filter bank is part of the graph, its short-time Fourier transform being a convolution, so that
ONNX Runtime needs neither ESPnet nor torch. The batch is one recording without padding.
"""

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.data.tokens import SPACE
from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.features import encoded_speech
from espnet_prune.models.espnet.format import task_trained
from espnet_prune.models.espnet.trained import ASR
from espnet_prune.models.family import DecoderFamily
from espnet_prune.models.graph_names import GRAPH, SPECIAL, SPEECH, TRAINED_SECONDS
from espnet_prune.models.graphs import Graph, Inputs, example_speech, length_dimension
from espnet_prune.surgery.families import find_family

logger = logging.getLogger(__name__)
NAMES = ("speech",), ("log_probs", "encoded")


def speech_graphs(
    model: nn.Module,
    graph: nn.Module,
    about: Mapping,
    tried: tuple[int, ...],
    least: int | None = None,
) -> list[Graph]:
    """Samples to CTC log-probabilities and hidden states, and a step of the decoder, if any.

    Args:
        model: an ESPnetASRModel.
        graph: the graph of all but the decoder.
        about: its ``describe_graphs``.
        tried: numbers of samples at which outputs are compared.
        least: number of samples that the exporter is told of; by default the fewest that the graph
            runs with.
    """

    def expected(speech: Tensor) -> Inputs:
        encoded = encoded_speech(model, speech)
        return model.ctc.log_softmax(encoded), encoded

    length = length_dimension(least or about["least_samples"], about["longest_samples"])
    whole = Graph(GRAPH, graph.eval(), *NAMES, ({1: length},), tried, example_speech, expected)
    found = getattr(model, "decoder", None)
    decoder = find_family(found)
    if isinstance(decoder, DecoderFamily):
        return [whole, *decoder.graphs(model)]
    if found is not None:
        kind = type(found).__name__
        logger.warning("decoder: %s isn't exported, only `transformer` is; CTC alone is", kind)
    return [whole]


def describe_speech(model: nn.Module, frames: Mapping[str, int]) -> dict:
    """What a program must know to feed a whole model with CTC and to read its outputs.

    Args:
        model: an ESPnetASRModel that carries its configuration.
        frames: ``sample_rate``, ``least_samples``, ``longest_samples`` and ``samples_a_frame``.
    """
    config = model.espnet_prune_config
    return {
        **{key: config[key] for key in (TRAINED_SECONDS,) if key in config},
        "kind": SPEECH,
        **frames,
        "blank": int(model.blank_id),
        "end": int(model.eos),
        "token_type": config["token_type"],
        **({} if task_trained(model) == ASR else {SPECIAL: _not_said(model.token_list)}),
    }


def _not_said(tokens: Sequence[str]) -> list[int]:
    """Ids of OWSM's tokens of languages, tasks and times, which ESPnet leaves out of its texts."""
    return [i for i, t in enumerate(tokens) if t[:1] + t[-1:] == "<>" and t != SPACE]


class SpeechGraph(nn.Module):
    """Samples to CTC log-probabilities.

    Args:
        model: an ESPnetASRModel with CTC.
        features: the graph of its front-end, samples (1, N) to features (1, T, F).
        encoder: that of its encoder, features to (1, T', D).

    Raises:
        ModelError: another normalisation; no CTC.
    """

    def __init__(self, model: nn.Module, features: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        check_ctc(model)
        self.features = features
        norm = model.normalize
        self.normalise = nn.Identity() if norm is None else NORMS[type(norm).__name__](norm)
        self.encoder = encoder
        self.ctc = model.ctc.ctc_lo

    def forward(self, speech: Tensor) -> tuple[Tensor, Tensor]:
        """(1, samples) within -1 to 1 -> log-probabilities (1, T', V), encoded (1, T', D)."""
        encoded = self.encoder(self.normalise(self.features(speech)))
        return torch.log_softmax(self.ctc(encoded), dim=-1), encoded


class GlobalNorm(nn.Module):
    """ESPnet's ``global_mvn``: the training set's mean and deviation.

    Args:
        norm: ESPnet's.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()  # ESPnet keeps them in float64
        self.register_buffer("mean", norm.mean.float() if norm.norm_means else None)
        self.register_buffer("std", norm.std.float() if norm.norm_vars else None)

    def forward(self, feats: Tensor) -> Tensor:
        """(1, T, F) -> (1, T, F)."""
        feats = feats if self.mean is None else feats - self.mean
        return feats if self.std is None else feats / self.std


class UtteranceNorm(nn.Module):
    """ESPnet's ``utterance_mvn``: each recording's own mean and, if asked for, deviation.

    Args:
        norm: ESPnet's.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.means, self.scales, self.floor = norm.norm_means, norm.norm_vars, norm.eps

    def forward(self, feats: Tensor) -> Tensor:
        """(1, T, F) -> (1, T, F)."""
        centred = feats - feats.mean(dim=1, keepdim=True)
        found = centred if self.means else feats
        if not self.scales:
            return found
        return found / centred.square().mean(dim=1, keepdim=True).sqrt().clamp(min=self.floor)


NORMS = {"GlobalMVN": GlobalNorm, "UtteranceMVN": UtteranceNorm}


class FilterBank(nn.Module):
    """ESPnet's default front-end with its Fourier transform as a convolution.

    Args:
        frontend: ESPnet's DefaultFrontend.

    Raises:
        ModelError: another one, or with enhancement.
    """

    def __init__(self, frontend: nn.Module) -> None:
        super().__init__()
        _check_default(frontend)
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
        size: length of the transform, in samples.
        window: (width,), put in the middle.
    """
    left = (size - len(window)) // 2
    window = F.pad(window.double(), (left, size - len(window) - left))
    steps = torch.arange(size, dtype=torch.float64)
    angles = 2 * math.pi / size * torch.outer(torch.arange(size // 2 + 1.0).double(), steps)
    return (torch.cat([torch.cos(angles), -torch.sin(angles)]) * window)[:, None].float()


def check_ctc(model: nn.Module) -> None:
    """ModelError where a part of an ESPnet model has no place in a graph of samples to CTC."""
    norm = model.normalize
    if norm is not None and type(norm).__name__ not in NORMS:
        raise ModelError(
            f"normalize: {type(norm).__name__}; known in an export are {', '.join(NORMS)}"
        )
    if model.ctc is None:
        raise ModelError("the model has no CTC (ctc_weight 0), which the exported graph ends with")
    for name in ("preencoder", "postencoder"):
        if getattr(model, name, None) is not None:
            raise ModelError(f"{name}: it can't be exported yet; leave it out")


def _check_default(frontend: nn.Module) -> None:
    stock = getattr(frontend, "frontend_type", None) == "default" and frontend.stft is not None
    enhancement = getattr(frontend, "frontend", None)
    enhanced = any(getattr(enhancement, name, False) for name in ("use_wpe", "use_beamformer"))
    if not stock or enhanced or not frontend.stft.onesided:
        raise ModelError(
            "frontend: only `default` on samples, without enhancement, can be exported; use the "
            "model in torch (espnet-prune transcribe --model)"
        )
