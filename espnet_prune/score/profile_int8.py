"""What a system costs in dynamic int8, by torch and ONNX Runtime, beside the dense model in fp32.

As in ``profile``: least of steady rounds, one utterance at a time, or None. ONNX Runtime is timed
from samples to text by greedy CTC only, as its graph is one of samples to log-probabilities.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy

from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.int8 import exported, stored_bytes
from espnet_prune.decode.recogniser import open_recogniser, rate_of
from espnet_prune.export.folder import GRAPH
from espnet_prune.export.int8 import ONNX, ONNX_INT8, TORCH
from espnet_prune.export.recogniser import OnnxRecogniser
from espnet_prune.models.family import Transcriber
from espnet_prune.score.timing import (
    ProfileConfig,
    decoding_run,
    read_speech,
    spread,
    steadily,
    time_encoder,
)

logger = logging.getLogger(__name__)


def profile_int8(system: Path, dense: Transcriber, data: Path, config: ProfileConfig) -> dict:
    """Profiles a system's int8 versions.

    Args:
        system: the system's folder.
        dense: the uncompressed model in floating point, which each is timed beside.
        data: a dump folder, for real speech.
        config: what and how often.

    Returns:
        For ``torch_int8``, ``onnx`` (fp32) and ``onnx_int8``: ``bytes`` of the file, ``rtf`` and
        ``speedup`` by measurement, as in a profile. ONNX's files hold encoder and CTC alone; of a
        model whose greedy search isn't by CTC, such as a transducer, both are None.

    Raises:
        ModelError: the model can't be quantised or exported.
    """
    folder = system / "model"
    search = DecodeConfig(beam_size=config.beam_size, ctc_weight=config.ctc_weight)
    number = max(config.greedy_utterances, config.joint_utterances)
    speech = read_speech(data, number, rate_of(dense))
    small = open_recogniser(folder, search, int8=True)
    made = {TORCH: {"bytes": stored_bytes(small.model), **_torch(small, dense, speech, config)}}
    if small.model.use_transducer_decoder or small.model.ctc is None:
        logger.info("%s: no ONNX is timed: its greedy search by CTC isn't this model's", folder)
        return {**made, ONNX: None, ONNX_INT8: None}
    for name, int8 in ((ONNX, False), (ONNX_INT8, True)):
        with exported(folder, int8) as export:
            recogniser = OnnxRecogniser(export, threads=config.threads)
            size = sum(path.stat().st_size for path in export.glob(f"{GRAPH}*"))
        made[name] = {"bytes": size, **_onnx(recogniser, dense, speech, config)}
    return made


def _torch(small: Transcriber, dense: Transcriber, speech: Sequence, config: ProfileConfig) -> dict:
    measured = [_encoder(small, dense, speech, config)]
    greedy, joint = (
        spread(speech, config.greedy_utterances),
        spread(speech, config.joint_utterances),
    )
    if "greedy" in small.modes:
        measured.append(_decoding("ctc_greedy", small, dense, greedy, config.repeats, config))
    if "joint" in small.modes:
        measured.append(_decoding("joint", small, dense, joint, config.joint_repeats, config))
    return _ratios(measured)


def _onnx(
    small: OnnxRecogniser, dense: Transcriber, speech: Sequence, config: ProfileConfig
) -> dict:
    chosen = spread(speech, config.greedy_utterances)

    def run() -> object:
        return [small.transcribe(samples) for samples in chosen]

    actions = [decoding_run(dense, chosen, "greedy"), run]
    best = steadily(actions, config.rounds(config.repeats))
    return _ratios([("ctc_greedy", _seconds(chosen, dense), best)])


def _encoder(
    small: Transcriber, dense: Transcriber, speech: Sequence, config: ProfileConfig
) -> tuple[str, float, list[float] | None]:
    seconds = config.reference_seconds
    actions = [time_encoder(r.model, speech, seconds) for r in (dense, small)]
    return "encoder", seconds, steadily(actions, config.rounds(config.repeats))


def _decoding(
    name: str,
    small: Transcriber,
    dense: Transcriber,
    chosen: Sequence[numpy.ndarray],
    repeats: int,
    config: ProfileConfig,
) -> tuple[str, float, list[float] | None]:
    mode = name.removeprefix("ctc_")
    actions = [decoding_run(recogniser, chosen, mode) for recogniser in (dense, small)]
    return name, _seconds(chosen, dense), steadily(actions, config.rounds(repeats))


def _seconds(chosen: Sequence[numpy.ndarray], recogniser: Transcriber) -> float:
    return sum(map(len, chosen)) / rate_of(recogniser)


def _ratios(
    measured: Sequence[tuple[str, float, list[float] | None]],
) -> dict[str, dict[str, float | None]]:
    """Real-time factors, and speed-ups over the dense model, by measurement; None where noisy."""
    return {
        "rtf": {name: best and best[1] / seconds for name, seconds, best in measured},
        "speedup": {name: best and best[0] / best[1] for name, _, best in measured},
    }
