"""A dense or cut model as ONNX, by torch's dynamo exporter: from samples to CTC log-probabilities.

The graph of a whole model begins with samples: its filter bank is part of it, the short-time
Fourier transform being a convolution, so that ONNX Runtime needs neither ESPnet nor torch. Time is
dynamic, the batch is one recording. Nothing is left in the folder unless ONNX Runtime's outputs
equal torch's at three lengths, of which one was used for the export.
"""

import contextlib
import io
import logging
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.errors import EnvironmentProblem, ModelError
from espnet_prune.export.folder import (
    BPE,
    DESCRIPTION,
    GRAPH,
    LEAST_FRAMES,
    LONGEST_FRAMES,
    SCHEMA,
    SUBSAMPLING,
    TOKENS,
    describe,
    new_folder,
)
from espnet_prune.export.int8 import quantise
from espnet_prune.export.session import open_session
from espnet_prune.io_atomic import write_json, write_text

CHECKED_FRAMES = (120, 57, 301)  # the first is exported
TOLERANCE = 1e-4  # of outputs of the order of 1, as for masked and cut models
INT32_MAX = 2**31 - 1
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
        self.register_buffer("kernel", _fourier_kernel(stft))
        self.register_buffer("mel", logmel.melmat)
        self.base = 1.0 if logmel.log_base is None else math.log(logmel.log_base)

    def forward(self, speech: Tensor) -> Tensor:
        """(1, samples) -> (1, T, F)."""
        padded = F.pad(speech[:, None], (self.padding, self.padding), mode="reflect")
        parts = F.conv1d(padded, self.kernel, stride=self.hop).transpose(1, 2)
        real, imaginary = parts.chunk(2, dim=-1)
        energy = (real.square() + imaginary.square()) @ self.mel
        return energy.clamp(min=1e-10).log() / self.base  # ESPnet's floor


def export_onnx(model: nn.Module, folder: str | Path, int8: bool = False) -> dict[int, float]:
    """Writes a model as ONNX and checks it in ONNX Runtime.

    Args:
        model: an ESPnetASRModel (samples to CTC log-probabilities, with tokens beside), or a
            ConformerEncoder (features to hidden states); dense or cut.
        folder: made, or replaced if it is an earlier export; gets ``model.onnx``, ``model.json``
            and, for a whole model, its tokens.
        int8: quantise the graph once it is checked; ``model.json`` then says by how much this
            changes its outputs (``int8_difference``), for which there is no limit.

    Returns:
        The largest difference from torch by number of samples (of features for an encoder),
        before quantisation.

    Raises:
        ConfigError: the folder holds anything but an earlier export.
        ModelError: a part that can't be exported, or outputs that differ by more than 1e-4.
        EnvironmentProblem: onnx, onnxscript or onnxruntime is missing.
    """
    folder = Path(folder)
    whole = not hasattr(model, "encoders")
    graph = (SpeechGraph(model) if whole else EncoderGraph(model)).eval()
    about = describe(model) if whole else {"kind": "conformer_encoder"}
    step = graph.features.hop if whole else 1
    with new_folder(folder) as new:
        _export(graph, _inputs(model, CHECKED_FRAMES[0]), step, new / GRAPH)
        differences = _compare(model, new / GRAPH)
        worst = float(numpy.max(list(differences.values())))  # a NaN anywhere is the maximum
        if not worst <= TOLERANCE:
            raise ModelError(
                f"{folder}: ONNX Runtime and torch differ by {worst:.2g} (allowed: {TOLERANCE:g}); "
                "nothing was written"
            )
        if whole:
            _write_tokens(model.espnet_prune_config, new)
        about["max_difference"] = {str(length): v for length, v in differences.items()}
        if int8:
            quantise(new / GRAPH)
            changed = _compare(model, new / GRAPH)
            about["int8_difference"] = {str(length): v for length, v in changed.items()}
        write_json(new / DESCRIPTION, {"schema": SCHEMA, **about})
    return differences


def _export(graph: nn.Module, inputs: Tensor, step: int, path: Path) -> None:
    length = torch.export.Dim("length", min=LEAST_FRAMES * step, max=LONGEST_FRAMES * step)
    whole = isinstance(graph, SpeechGraph)
    try:
        import onnxscript  # noqa: F401  (the exporter would fail in the middle without it)

        with _quiet(), torch.no_grad():
            torch.onnx.export(
                graph,
                (inputs,),
                path,
                dynamo=True,
                external_data=_bytes(graph) > INT32_MAX // 2,
                input_names=["speech" if whole else "feats"],
                output_names=["log_probs", "encoded"] if whole else ["encoded"],
                dynamic_shapes=({1: length},),
            )
    except ImportError as error:
        raise EnvironmentProblem(
            f"{error.name} is missing; install the extra: pip install 'espnet_prune[onnx]'"
        ) from error
    except torch.onnx.OnnxExporterError as error:
        cause = next(filter(None, str(error.__cause__ or error).splitlines()), "")
        raise ModelError(f"torch can't export this model to ONNX: {cause}") from error
    finally:
        for module in graph.modules():  # ESPnet keeps the last attention map, here a traced one
            if hasattr(module, "attn") and not isinstance(module.attn, nn.Module):
                module.attn = None


def _compare(model: nn.Module, path: Path) -> dict[int, float]:
    """The largest difference of any output, by length of the input."""
    session = open_session(path)
    name = session.get_inputs()[0].name
    differences = {}
    for frames in CHECKED_FRAMES:
        inputs = _inputs(model, frames)
        with torch.no_grad():
            expected = _stock(model, inputs)
        found = session.run(None, {name: inputs.numpy()})
        pairs = zip(found, expected, strict=True)
        if any(a.shape != tuple(b.shape) for a, b in zip(found, expected, strict=True)):
            raise ModelError(f"{path}: outputs of another shape than torch's; this is a bug")
        each = [numpy.abs(a - b.numpy()).max(initial=0.0) for a, b in pairs]
        differences[inputs.shape[1]] = float(numpy.max(each))
    return differences


def _stock(model: nn.Module, inputs: Tensor) -> tuple[Tensor, ...]:
    """What the model itself gives, by its own front-end and forward."""
    lengths = torch.tensor([inputs.shape[1]])
    if hasattr(model, "encoders"):
        return (model(inputs, lengths)[0],)
    encoded, _ = model.encode(inputs, lengths)
    return model.ctc.log_softmax(encoded), encoded


def _inputs(model: nn.Module, frames: int) -> Tensor:
    """Random input: features (1, frames, F), or samples (1, N) of as many frames."""
    generator = torch.Generator().manual_seed(frames)
    if hasattr(model, "encoders"):
        return torch.randn(1, frames, _feature_size(model), generator=generator)
    return 0.1 * torch.randn(1, frames * model.frontend.hop_length, generator=generator)


def _feature_size(encoder: nn.Module) -> int:
    from espnet_prune.sites import describe_conformer

    config = getattr(encoder, "espnet_prune_config", None) or describe_conformer(encoder)
    return config["input_size"]


def _fourier_kernel(stft: nn.Module) -> Tensor:
    """Windowed cosines and sines, (2 * bins, 1, n_fft), as torch.stft has them."""
    size, width = stft.n_fft, stft.win_length
    name = stft.window or "ones"
    window = torch.ones(width) if name == "ones" else getattr(torch, f"{name}_window")(width)
    left = (size - width) // 2
    window = F.pad(window.double(), (left, size - width - left))
    steps = torch.arange(size, dtype=torch.float64)
    angles = 2 * math.pi / size * torch.outer(torch.arange(size // 2 + 1.0).double(), steps)
    kernel = torch.cat([torch.cos(angles), -torch.sin(angles)]) * window
    return (kernel / math.sqrt(size) if stft.normalized else kernel)[:, None].float()


def _check(model: nn.Module) -> None:
    if not hasattr(model, "frontend"):
        raise ModelError(
            f"{type(model).__name__}: only an ESPnet model or its ConformerEncoder can be "
            "exported; use this one in torch"
        )
    front_end, norm = model.frontend, model.normalize
    if model.ctc is None:
        raise ModelError("the model has no CTC (ctc_weight 0), which the exported graph ends with")
    stock = getattr(front_end, "frontend_type", None) == "default" and front_end.stft is not None
    enhancement = getattr(front_end, "frontend", None)
    enhanced = any(getattr(enhancement, name, False) for name in ("use_wpe", "use_beamformer"))
    if not stock or enhanced or not front_end.stft.onesided:
        raise ModelError(
            "frontend: only `default` on samples, without enhancement, can be exported, no wav2vec "
            "2.0 or HuBERT; use the model in torch (espnet_prune.bin.transcribe --model)"
        )
    if norm is not None and type(norm).__name__ != "GlobalMVN":
        raise ModelError(f"normalize: {type(norm).__name__}; only global_mvn can be exported")
    for name in ("preencoder", "postencoder"):
        if getattr(model, name, None) is not None:
            raise ModelError(f"{name}: it can't be exported yet; leave it out")


def _write_tokens(config: Mapping, folder: Path) -> None:
    write_text(folder / TOKENS, "".join(f"{token}\n" for token in config["token_list"]))
    if config.get("bpemodel"):
        shutil.copyfile(config["bpemodel"], folder / BPE)


def _bytes(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in module.state_dict().values())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress and warnings about its own internals."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
