"""The report's table of dynamic int8 beside floating point."""

from collections.abc import Sequence

from espnet_prune.export.int8 import ONNX, ONNX_INT8, TORCH
from espnet_prune.report.text_table import (
    NOT_APPLICABLE,
    NOT_RUN,
    Line,
    Table,
    conditions,
    in_bytes,
    rtf_cell,
)

NOTE = (
    "In brackets: times as fast as the dense model in fp32 in torch, in the same run. The files of "
    "ONNX hold the encoder and CTC, those of torch the decoder too."
)


def int8_table(lines: Sequence[Line]) -> list[Table]:
    """Sizes and real-time factors of the systems whose int8 was measured; none, if none was.

    Their word error rates are columns of the table of those.
    """
    measured = [(name, system) for name, system in lines if system.get("int8")]
    if not measured:
        return []
    header = ["system", "file fp32", "torch int8", "ONNX fp32", "ONNX int8", "encoder int8"]
    header += ["greedy fp32", "greedy int8", "greedy ONNX fp32", "greedy ONNX int8"]
    header += ["joint fp32", "joint int8"]
    rows = [[name, *_cells(system)] for name, system in measured]
    title = f"Dynamic int8: files and real-time factors ({conditions(measured)})"
    return [Table(title, header, rows, NOTE)]


def _cells(system: dict) -> list[str]:
    made, size = system["int8"], system["weights_bytes"]
    torch_int8 = made[TORCH]
    cells = [in_bytes(size["kept"]) if size else NOT_RUN]
    files = (made[name] for name in (TORCH, ONNX, ONNX_INT8))
    cells += [in_bytes(part["bytes"]) if part else NOT_APPLICABLE for part in files]
    pairs = [(torch_int8, "encoder"), (system, "ctc_greedy"), (torch_int8, "ctc_greedy")]
    pairs += [(made[ONNX], "ctc_greedy"), (made[ONNX_INT8], "ctc_greedy")]
    pairs += [(system, "joint"), (torch_int8, "joint")]
    for part, measurement in pairs:
        if part is None:  # ONNX, where the greedy search isn't by CTC
            cells.append(NOT_APPLICABLE)
            continue
        text = rtf_cell(part["rtf"], {}, measurement)
        faster = part["speedup"].get(measurement)
        cells.append(text if faster is None else f"{text} ({faster:.2f}x)")
    return cells
