"""Dynamic int8 of an exported graph: weights of matrix products as 8-bit integers.

Activations are quantised as they come, so no data is needed. The filter bank stays as it is: its
products span many orders of magnitude, and a recogniser whose features have 8 bits hears nothing.
Convolutions stay too; ONNX Runtime's integer ones are slower than those in floating point.
"""

import logging
import shutil
from pathlib import Path

from espnet_prune.errors import EnvironmentProblem, ModelError
from espnet_prune.export.folder import BESIDE

# Modes of decoding by an int8 model: the mode that they are of, and whether ONNX Runtime runs it.
INT8_MODES = {
    "greedy_int8": ("greedy", False),
    "ctc_prefix_int8": ("ctc_prefix", False),
    "joint_int8": ("joint", False),
    "greedy_onnx_int8": ("greedy", True),
}
TORCH, ONNX, ONNX_INT8 = "torch_int8", "onnx", "onnx_int8"  # in a profile
QUANTISED = ("MatMul", "Gemm")
FILTER_BANK = "features."  # where SpeechGraph holds it


def base_mode(mode: str) -> str:
    """The mode of the same search by the model in floating point."""
    return INT8_MODES[mode][0] if mode in INT8_MODES else mode


def by_onnx(mode: str) -> bool:
    """Whether ONNX Runtime decodes in this mode."""
    return mode in INT8_MODES and INT8_MODES[mode][1]


def quantise(path: Path) -> None:
    """Replaces a graph by its int8 version.

    Args:
        path: a graph, its weights inside or beside.

    Raises:
        EnvironmentProblem: onnx or onnxruntime is missing.
        ModelError: the graph has no matrix product of constant weights.
    """
    try:
        import onnx
        from onnxruntime.quantization import quantize_dynamic
    except ImportError as error:
        raise EnvironmentProblem(
            f"{error.name} is missing; install the extra: pip install 'espnet_prune[onnx]'"
        ) from error
    beside = path.with_name(path.name + BESIDE)
    model = onnx.load(path, load_external_data=False)
    nodes = model.graph.node
    # ONNX Runtime transposes the weights of Gemm, and then trips over their shapes noted here
    del model.graph.value_info[:]
    onnx.save(model, path)
    kept = [n.name for n in nodes if any(name.startswith(FILTER_BANK) for name in n.input)]
    work = path.parent / "int8"
    work.mkdir()
    logging.disable(logging.WARNING)  # it advises an optimisation that the exporter has done
    try:
        quantize_dynamic(
            path,
            work / path.name,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=kept,
            use_external_data_format=beside.exists(),
            extra_options={"EnableSubgraph": True},  # a streaming encoder's two ways are such
        )
    finally:
        logging.disable(logging.NOTSET)
    made = onnx.load(work / path.name, load_external_data=False).graph.node
    if not any(node.op_type == "MatMulInteger" for node in made):
        raise ModelError(f"{path}: no matrix product to quantise is left; export without --int8")
    for old in (path, beside):
        old.unlink(missing_ok=True)
    for new in work.iterdir():
        shutil.move(new, path.parent / new.name)
    work.rmdir()
