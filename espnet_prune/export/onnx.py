"""A dense or cut model as ONNX, by torch's dynamo exporter.

A model with CTC is exported from samples to log-probabilities, Whisper from samples to hidden
states; a decoder is a second graph, from the tokens so far to the next. Time is dynamic, the batch
is one recording. Nothing is left in the folder unless ONNX Runtime's outputs equal torch's at three
lengths of each graph, of which one was used for the export. Weights in few bits are so in the file.
"""

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy
import torch
from torch import nn

from espnet_prune.errors import EnvironmentProblem, ModelError
from espnet_prune.export.few_bits import OPSET, Known, known_constants, store_rounded
from espnet_prune.export.folder import (
    BPE,
    DESCRIPTION,
    SCHEMA,
    TOKENIZER,
    TOKENS,
    others_than_export,
)
from espnet_prune.export.int8 import quantise
from espnet_prune.export.session import open_session
from espnet_prune.io_atomic import new_folder, write_json, write_text
from espnet_prune.models.graphs import Graph
from espnet_prune.surgery.cut import twin_of
from espnet_prune.surgery.families import family_of

INT32_MAX = 2**31 - 1


def export_onnx(model: nn.Module, folder: str | Path, int8: bool = False) -> dict[str, float]:
    """Writes a model as ONNX and checks it in ONNX Runtime.

    Args:
        model: dense or cut, of a family whose graphs are known: an ESPnetASRModel (samples to
            CTC log-probabilities, or of a Whisper to hidden states, with tokens beside; and its
            decoder's step), an encoder alone, or transformers' own classes, from their own inputs.
        folder: made, or replaced if it is an earlier export; gets ``model.onnx``, ``decoder.onnx``
            where there is a decoder, ``model.json`` and, for a whole model, its tokens.
        int8: quantise the graphs once they are checked; ``model.json`` then says by how much this
            changes their outputs (``int8_difference``), for which there is no limit.

    Returns:
        The largest difference from torch by graph and length, such as ``model.onnx 9120``,
        before quantisation.

    Raises:
        ConfigError: the folder holds anything but an earlier export.
        ModelError: a part that can't be exported, or outputs that differ by more than the
            part's tolerance.
        EnvironmentProblem: onnx, onnxscript or onnxruntime is missing.
    """
    folder = Path(folder)
    parts = graphs_of(model)
    about = family_of(model).describe_graphs(model)
    known = {} if int8 else known_constants(model)
    with new_folder(folder, others_than_export, "an export") as new:
        for part in parts:
            _export(part, known, new / part.file)
        differences = _compare(parts, new)
        for part in parts:
            found = [value for key, value in differences.items() if key.startswith(part.file)]
            worst = float(numpy.max(found))  # a NaN anywhere is the maximum
            if not worst <= part.tolerance:
                raise ModelError(
                    f"{folder}: {part.file}: ONNX Runtime and torch differ by {worst:.2g} "
                    f"(allowed: {part.tolerance:g}); nothing was written"
                )
        if hasattr(model, "token_list"):
            _write_tokens(model.espnet_prune_config, new)
        about["max_difference"] = differences
        if int8:
            for part in parts:
                quantise(new / part.file)
            about["int8_difference"] = _compare(parts, new)
        write_json(new / DESCRIPTION, {"schema": SCHEMA, **about})
    return differences


def graphs_of(model: nn.Module) -> list[Graph]:
    """What a model is exported as, of a copy in evaluation mode.

    Raises:
        ModelError: a model, or a part of it, that can't be exported, or one that isn't in float32.
    """
    check_float32(model)
    return family_of(model).graphs(twin_of(model).eval())


def check_float32(model: nn.Module) -> None:
    """ModelError for a model in another precision, in which no export can be compared with it."""
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ModelError(
                f"{name} is {parameter.dtype}; a model is exported in float32: call model.float() "
                "first"
            )


def _export(part: Graph, known: Known, path: Path) -> None:
    """Writes a graph, with the weights in few bits that are known as such."""
    try:
        import onnxscript  # noqa: F401  (the exporter would fail in the middle without it)

        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                part.graph,
                part.example(part.tried[0]),
                dynamo=True,
                input_names=part.inputs,
                output_names=part.outputs,
                dynamic_shapes=part.shapes,
                opset_version=OPSET if known else None,
            )
            store_rounded(program.model.graph, known)
            _forget_traces(program.model.graph)
            program.save(path, external_data=_bytes(part.graph) > INT32_MAX // 2)
    except ImportError as error:
        raise EnvironmentProblem(
            f"{error.name} is missing; install the extra: pip install 'espnet_prune[onnx]'"
        ) from error
    except torch.onnx.OnnxExporterError as error:
        cause = next(filter(None, str(error.__cause__ or error).splitlines()), "")
        raise ModelError(f"torch can't export this model to ONNX: {cause}") from error
    finally:
        for module in part.graph.modules():  # ESPnet keeps the last attention map, a traced one
            if hasattr(module, "attn") and not isinstance(module.attn, nn.Module):
                module.attn = None


def _forget_traces(graph) -> None:
    """Takes out the stack trace of each node: megabytes, with paths of this machine in them."""
    from onnx_ir.traversal import RecursiveGraphIterator

    for node in RecursiveGraphIterator(graph):
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


def _compare(parts: Sequence[Graph], folder: Path) -> dict[str, float]:
    """The largest difference of any output, by graph and length."""
    differences = {}
    for part in parts:
        session = open_session(folder / part.file)
        for length in part.tried:
            inputs = part.example(length)
            with torch.no_grad():
                expected = part.expected(*inputs)
            values = (tensor.numpy() for tensor in inputs)
            found = session.run(None, dict(zip(part.inputs, values, strict=True)))
            pairs = list(zip(found, expected, strict=True))
            if any(a.shape != tuple(b.shape) for a, b in pairs):
                raise ModelError(f"{part.file}: outputs of another shape than torch's; a bug")
            each = [numpy.abs(a - b.numpy()).max(initial=0.0) for a, b in pairs]
            differences[f"{part.file} {length}"] = float(numpy.max(each))
    return differences


def _write_tokens(config: Mapping, folder: Path) -> None:
    write_text(folder / TOKENS, "".join(f"{token}\n" for token in config["token_list"]))
    if config.get("bpemodel"):  # of Whisper, its tokenizer
        name = TOKENIZER if config.get("token_type") == "hugging_face" else BPE
        shutil.copyfile(config["bpemodel"], folder / name)


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
