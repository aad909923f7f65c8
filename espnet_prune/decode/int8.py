"""Dynamic int8 of a model in torch: weights of linear layers as 8-bit integers.

Weights are quantised for each output, activations as they come, so no data is needed. Projections
of relative positions stay: they are made once, not for each recording. Convolutions stay too, as
torch has no dynamic int8 of them, and a transducer's joint network, which ESPnet's search gives
single vectors, as torch's int8 layers don't take them. So do its recurrent layers.
"""

import contextlib
import functools
import io
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.export.onnx import export_onnx
from espnet_prune.export.recogniser import OnnxRecogniser
from espnet_prune.surgery import load

LEFT_OUT = ("linear_pos", "joint_network")  # what names of layers that stay have in them


def quantise_linear(model: nn.Module) -> nn.Module:
    """Replaces a model's linear layers by int8 ones, in place.

    Args:
        model: on the CPU, in evaluation mode.

    Returns:
        The same.

    Raises:
        ModelError: it has no linear layer with weights.
    """
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    names = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and module.weight.numel()
        and not any(part in name for part in LEFT_OUT)
    ]
    if not names:
        raise ModelError("int8: the model has no linear layer to quantise; decode it in fp32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of a library of its own
        return quantize_dynamic(
            model, dict.fromkeys(names, per_channel_dynamic_qconfig), inplace=True
        )


def stored_bytes(model: nn.Module) -> int:
    """Size of the file that torch makes of a model's weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
    return buffer.getbuffer().nbytes


@contextlib.contextmanager
def exported(model: Path, int8: bool) -> Iterator[Path]:
    """A folder, for the time being, with a saved model's export for ONNX Runtime, in int8 or not.

    Raises:
        ModelError: it can't be exported, or its greedy search isn't that of the export.
    """
    loaded = load(model)
    if getattr(loaded, "use_transducer_decoder", False):
        raise ModelError(
            f"{model}: greedy_onnx_int8: ONNX has no search of a transducer, and the greedy text "
            "of its CTC is another; leave this mode out of modes"
        )
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(loaded, Path(folder) / "onnx", int8)
        yield Path(folder) / "onnx"


@functools.lru_cache(maxsize=1)
def onnx_recogniser(folder: Path, segment_seconds: float) -> OnnxRecogniser:
    """What decodes with such a folder, loaded once a process, on one thread as torch does."""
    return OnnxRecogniser(folder, segment_seconds, threads=1)
