"""What a system costs, measured beside the uncompressed model in the same run.

Parameters, multiply-accumulates (MACs) and real-time factors (seconds of work per second of
speech). Times are the least of several rounds on real speech, one utterance at a time, in which the
dense model took as long before the cut one as after it; what was never so steady has no time. A
speed is claimed of a cut model only. MACs are counted by torch's flop counter on what really runs,
with eager attention, whose products it sees all; they are what the budget adds up (tested).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy

from espnet_prune.data.resume import fingerprint
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.recogniser import open_recogniser, rate_of
from espnet_prune.models.conformer.fast_encoder import as_espnet, is_fast
from espnet_prune.models.espnet.features import input_shape, run_encoder
from espnet_prune.models.espnet.folder import model_files
from espnet_prune.models.family import Transcriber
from espnet_prune.record import file_digest, machine
from espnet_prune.score.profile_int8 import profile_int8
from espnet_prune.score.timing import (
    ProfileConfig,
    decoding_run,
    read_speech,
    spread,
    steadily,
    time_encoder,
)

SCHEMA = 1
FLOPS_A_MAC = 2
FUSED = ("use_sdpa", "use_flash_attn")  # attributes of ESPnet's attention


def made_from(system: Path, teacher: Path, data: Path, config: Mapping) -> dict:
    """What a profile depends on: configuration, both models, data; but not the machine.

    Raises:
        DataError: a model isn't there; says which stage makes it.
    """
    digests = {
        name: file_digest(model_files(folder / "model")[1])
        for name, folder in (("system", system), ("teacher", teacher))
    }
    return {"config": dict(config), "models": digests, "data": fingerprint(data)}


def profile(system: Path, teacher: Path, data: Path, config: ProfileConfig) -> dict:
    """Profiles a system beside the teacher.

    Args:
        system: the system's folder; the teacher's own is measured against itself.
        teacher: the uncompressed one's.
        data: a dump folder, for real speech.
        config: what and how often.

    Returns:
        What profile.json holds; ``dense_...`` is the teacher in the same run. ``encoder`` is
        timed as it decodes; where that isn't ESPnet's own forward, ``encoder_espnet`` is that. A
        time that the machine's other work blurred, and what is computed of it, is None.

    Raises:
        DataError: the data has no speech.
        ModelError: a model can't be loaded.
    """
    import torch

    torch.set_num_threads(config.threads)
    search = DecodeConfig(beam_size=config.beam_size, ctc_weight=config.ctc_weight)
    pair = [open_recogniser(folder / "model", search) for folder in (teacher, system)]
    for recogniser in pair:
        recogniser.model.eval()
    seconds, best = _times(pair, data, config)
    macs = [encoder_macs(r.model, config.reference_seconds) for r in pair]
    rtf = [{key: times and times[i] / seconds[key] for key, times in best.items()} for i in (0, 1)]
    common = {"threads": config.threads, "batch": 1}
    predicted = macs[0] / max(1, macs[1])
    speedup = {key: times and times[0] / times[1] for key, times in best.items()}
    realised = speedup["encoder"] and speedup["encoder"] / predicted
    return {
        "schema": SCHEMA,
        "params": _parameters(*(r.model for r in pair)),
        "reference_seconds": config.reference_seconds,
        "macs_per_second": macs[1] / config.reference_seconds,
        "dense_macs_per_second": macs[0] / config.reference_seconds,
        "rtf": {**rtf[1], **common},
        "dense_rtf": {**rtf[0], **common},
        "speedup": {
            **speedup,
            "predicted": predicted,
            "realised_over_predicted": realised,
        },
        "measured_seconds_of_speech": seconds,
        "beam_size": config.beam_size,
        "machine": machine(),
        **({"int8": profile_int8(system, pair[0], data, config)} if config.int8 else {}),
    }


def noisy(profile: Mapping) -> list[str]:
    """What of a profile.json the machine's other work blurred, by name."""
    parts = {"": profile["speedup"]}
    parts |= {f"{name} ": part["speedup"] for name, part in profile.get("int8", {}).items() if part}
    return [
        f"{of}{name}"
        for of, speedups in parts.items()
        for name, value in speedups.items()
        if value is None and name != "realised_over_predicted"
    ]


def encoder_macs(model, reference_seconds: float) -> int:
    """Multiply-accumulates of an encoder for an utterance of the reference length.

    Args:
        model: an ESPnetASRModel.
        reference_seconds: its length; the features' frames follow from the hop.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    shape = input_shape(model, reference_seconds)
    feats, length = torch.zeros(1, *shape), torch.tensor([shape[0]])
    with torch.no_grad(), as_espnet(model.encoder), eager_attention(model.encoder):
        with FlopCounterMode(display=False) as counter:
            run_encoder(model, feats, length)
    return counter.get_total_flops() // FLOPS_A_MAC


@contextlib.contextmanager
def eager_attention(encoder) -> Iterator[None]:
    """Attention without fused kernels, whose products the flop counter doesn't see."""
    fused = [
        (module, name)
        for module in encoder.modules()
        for name in FUSED
        if getattr(module, name, False)
    ]
    configs = {id(m.config): m.config for m in encoder.modules() if hasattr(m, "config")}
    chosen = {key: config._attn_implementation for key, config in configs.items()}
    for module, name in fused:
        setattr(module, name, False)
    for config in configs.values():
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for module, name in fused:
            setattr(module, name, True)
        for key, config in configs.items():
            config._attn_implementation = chosen[key]


def _parameters(dense, small) -> dict[str, dict[str, int]]:
    from espnet_prune.sites import count_parameters

    parts = {"encoder": (small.encoder, dense.encoder), "total": (small, dense)}
    return {
        name: {"kept": count_parameters(kept), "dense": count_parameters(whole)}
        for name, (kept, whole) in parts.items()
    }


def _times(
    pair: Sequence[Transcriber], data: Path, config: ProfileConfig
) -> tuple[dict[str, float], dict[str, list[float] | None]]:
    """Seconds of speech, and least seconds of work (dense, small) or None, by measurement."""
    rate = rate_of(pair[0])
    speech = read_speech(data, max(config.greedy_utterances, config.joint_utterances), rate)
    best = _time_encoders(pair, speech, config)
    seconds = dict.fromkeys(best, config.reference_seconds)

    def measure(mode: str, number: int, repeats: int) -> tuple[float, list[float] | None]:
        chosen = spread(speech, number)
        actions = [decoding_run(r, chosen, mode) for r in pair]
        return sum(map(len, chosen)) / rate, steadily(actions, config.rounds(repeats))

    greedy, joint = config.greedy_utterances, config.joint_utterances
    if "greedy" in pair[0].modes:  # not of a model without CTC
        seconds["ctc_greedy"], best["ctc_greedy"] = measure("greedy", greedy, config.repeats)
    if "joint" in pair[0].modes:
        seconds["joint"], best["joint"] = measure("joint", joint, config.joint_repeats)
    return seconds, best


def _time_encoders(
    pair: Sequence[Transcriber], speech: Sequence[numpy.ndarray], config: ProfileConfig
) -> dict[str, list[float] | None]:
    """Least seconds of the encoders as they decode, and by ESPnet's own forward if that differs."""
    actions = [time_encoder(r.model, speech, config.reference_seconds) for r in pair]
    rounds = config.rounds(config.repeats)
    if not all(is_fast(recogniser.model.encoder) for recogniser in pair):
        return {"encoder": steadily(actions, rounds)}
    stock = [_as_espnet(r.model.encoder, run) for r, run in zip(pair, actions, strict=True)]
    best = steadily([*actions, *stock], rounds)
    return {"encoder": best and best[:2], "encoder_espnet": best and best[2:]}


def _as_espnet(encoder, run: Callable[[], object]) -> Callable[[], object]:
    def stock() -> object:
        with as_espnet(encoder):
            return run()

    return stock
