"""An ONNX Runtime session on the CPU; nothing here imports torch."""

import os
from pathlib import Path

from espnet_prune.errors import EnvironmentProblem, ModelError


def open_session(path: Path, threads: int | None = None):
    """Opens a graph.

    Args:
        path: the graph's file.
        threads: by default those of ``OMP_NUM_THREADS``, as torch's are, or all cores.

    Raises:
        EnvironmentProblem: onnxruntime is missing.
        ModelError: the file can't be read.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentProblem(
            "onnxruntime is missing; install the extra: pip install 'espnet_prune[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    named = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = threads or (int(named) if named.isdecimal() else 0)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, all from Exception
        raise ModelError(f"{path}: ONNX Runtime can't read it ({error})") from error
