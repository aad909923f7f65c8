"""Dynamic int8 of a cut encoder beside float32, in torch and in ONNX Runtime."""

import copy
import shutil
import tempfile
from pathlib import Path

import structures
import torch
from torch import nn

DENSE = "dense, torch float32"


def measure(size: int, blocks: int, seconds: float, repeats: int, target: float = 0.5) -> dict:
    """Seconds, and speed-ups over the dense encoder in torch.

    Linear layers alone have 8 bits in torch (pointwise convolutions are none of them there), matrix
    products in ONNX Runtime; all of torch's go by the pass that decoding takes. Random weights:
    what 8 bits do to the WER is for a recipe to say.
    """
    from espnet_prune.decode.int8 import quantise_linear
    from espnet_prune.models.conformer.fast_encoder import speed_up
    from espnet_prune.score.timing import encoder_run, interleaved

    dense = structures.dense_encoder(size, blocks)
    cut = structures.cut_encoder(dense, structures.UNIFORM, target, "parameters", seconds).encoder
    quantised = quantise_linear(copy.deepcopy(cut))
    inputs = structures.features(seconds)
    with tempfile.TemporaryDirectory() as folder:
        sessions = _in_onnx_runtime(cut, Path(folder))
    for encoder in (dense, cut, quantised):
        speed_up(encoder)
    actions = {
        DENSE: encoder_run(dense, *inputs),
        "cut, torch float32": encoder_run(cut, *inputs),
        "cut, torch int8": encoder_run(quantised, *inputs),
    }
    for name, session in sessions.items():
        feed = {session.get_inputs()[0].name: inputs[0].numpy()}
        actions[name] = lambda session=session, feed=feed: session.run(None, feed)
    found = interleaved([*actions.values()], repeats)
    best = dict(zip(actions, found, strict=True))
    return {"seconds": best, "speedup": {name: best[DENSE] / value for name, value in best.items()}}


def _in_onnx_runtime(encoder: nn.Module, folder: Path) -> dict:
    """Sessions of the exported encoder in float32 and in 8 bits, one thread."""
    from espnet_prune.export.folder import GRAPH
    from espnet_prune.export.int8 import quantise
    from espnet_prune.export.onnx import export_onnx
    from espnet_prune.export.session import open_session

    threads = torch.get_num_threads()
    plain, small = folder / "float32", folder / "int8"
    export_onnx(encoder, plain)
    shutil.copytree(plain, small)
    quantise(small / GRAPH)
    return {f"cut, ONNX Runtime {f.name}": open_session(f / GRAPH, threads) for f in (plain, small)}
