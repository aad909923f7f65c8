"""What a system costs, measured beside the uncompressed model in the same run.

Times are the least of several repeats, dense and pruned in turn (A B A B), on real speech, one
utterance at a time. A speed is claimed of a cut model only. MACs are counted by torch's flop
counter on what really runs, with eager attention.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from espnet_prune.config import check_range
from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.kaldi_dir import read_data
from espnet_prune.espnet.decoding import SAMPLE_RATE, DecodeConfig, Recogniser

FLOPS_A_MAC = 2


@dataclass(frozen=True)
class ProfileConfig:
    """How a system is measured.

    Attributes:
        reference_seconds: length of the utterance for the encoder's time and MACs.
        threads: of torch.
        repeats: of every measurement; the least counts.
        greedy_utterances: for the greedy real-time factor.
        joint_utterances: for the joint one.
        beam_size: of the joint search.
        ctc_weight: of CTC in it.
    """

    reference_seconds: float = 10.0
    threads: int = 1
    repeats: int = 5
    greedy_utterances: int = 10
    joint_utterances: int = 3
    beam_size: int = 10
    ctc_weight: float = 0.3

    def __post_init__(self) -> None:
        check_range("reference_seconds", self.reference_seconds, 0.5, 600)
        for name in ("threads", "repeats", "greedy_utterances", "joint_utterances", "beam_size"):
            check_range(name, getattr(self, name), 1, 10000)


def encoder_macs(model, reference_seconds: float) -> int:
    """Multiply-accumulates of an encoder for an utterance of the reference length.

    Args:
        model: an ESPnetASRModel.
        reference_seconds: its length; the features' frames follow from the hop.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    hop = model.frontend.hop_length
    frames = round(reference_seconds * SAMPLE_RATE / hop)
    feats = torch.zeros(1, frames, model.frontend.output_size())
    for module in model.encoder.modules():
        if hasattr(module, "use_sdpa"):
            module.use_sdpa = False
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.encoder(feats, torch.tensor([frames]))
    return counter.get_total_flops() // FLOPS_A_MAC


def interleaved(actions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Least seconds of each action, run in turn ``repeats`` times after one warm-up."""
    best = [float("inf")] * len(actions)
    for repeat in range(repeats + 1):
        for index, action in enumerate(actions):
            started = time.perf_counter()
            action()
            seconds = time.perf_counter() - started
            if repeat:
                best[index] = min(best[index], seconds)
    return best


def profile(system: Path, teacher: Path, data: Path, config: ProfileConfig) -> dict:
    """Profiles a system beside the teacher.

    Args:
        system: the system's folder.
        teacher: the uncompressed one's.
        data: a dump folder, for real speech.
        config: what and how often.

    Returns:
        What profile.json holds.
    """
    import torch

    torch.set_num_threads(config.threads)
    search = DecodeConfig(beam_size=config.beam_size, ctc_weight=config.ctc_weight)
    dense, small = (Recogniser(folder / "model", search) for folder in (teacher, system))
    entries = list(read_data(data).recordings.items())
    speech = [read_audio(entry, f"utterance '{u}'", SAMPLE_RATE)[0] for u, entry in entries[:50]]
    seconds = {"encoder": config.reference_seconds}
    best = {"encoder": _time_encoders((dense, small), speech, config)}
    for mode, key, number in (
        ("greedy", "ctc_greedy", config.greedy_utterances),
        ("joint", "joint", config.joint_utterances),
    ):
        chosen = speech[:number]
        seconds[key] = sum(len(samples) for samples in chosen) / SAMPLE_RATE
        actions = [_transcriber(r, chosen, mode) for r in (dense, small)]
        repeats = config.repeats if mode == "greedy" else max(1, config.repeats // 2)
        best[key] = interleaved(actions, repeats)
    macs = [encoder_macs(r.model, config.reference_seconds) for r in (dense, small)]
    predicted = macs[0] / max(1, macs[1])
    speedup = {key: times[0] / times[1] for key, times in best.items()}
    common = {"threads": config.threads, "batch": 1}
    return {
        "schema": 1,
        "macs_per_second": macs[1] / config.reference_seconds,
        "dense_macs_per_second": macs[0] / config.reference_seconds,
        "reference_seconds": config.reference_seconds,
        "rtf": {**{k: times[1] / seconds[k] for k, times in best.items()}, **common},
        "dense_rtf": {**{k: times[0] / seconds[k] for k, times in best.items()}, **common},
        "speedup": {
            **speedup,
            "predicted": predicted,
            "realised_over_predicted": speedup["encoder"] / predicted,
        },
        "beam_size": config.beam_size,
        "machine": machine(),
    }


def machine() -> dict:
    """What the times were measured on."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].partition(":")[2].strip() if names else name
    return {"cpu": name, "cores": os.cpu_count(), "torch": torch.__version__}


def _time_encoders(recognisers: Sequence[Recogniser], speech: list, config: ProfileConfig):
    import torch

    samples = numpy.concatenate(speech)
    needed = round(config.reference_seconds * SAMPLE_RATE)
    samples = numpy.resize(samples, needed).astype(numpy.float32) / 32768.0
    actions = []
    for recogniser in recognisers:
        model = recogniser.model
        with torch.no_grad():
            waves = torch.from_numpy(samples)[None]
            feats, lengths = model._extract_feats(waves, torch.tensor([needed]))
            feats, lengths = (
                model.normalize(feats, lengths) if model.normalize else (feats, lengths)
            )
        actions.append(_encoder_run(model.encoder, feats, lengths))
    return interleaved(actions, config.repeats)


def _encoder_run(encoder, feats, lengths) -> Callable[[], object]:
    import torch

    def run() -> object:
        with torch.no_grad():
            return encoder(feats, lengths)

    return run


def _transcriber(recogniser: Recogniser, speech: list, mode: str) -> Callable[[], object]:
    return lambda: [recogniser.transcribe(samples, mode) for samples in speech]
