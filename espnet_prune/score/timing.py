"""How a system is timed: on real speech, beside the uncompressed model, the least of repeats.

Dense and cut run in turn, one utterance at a time: what else the machine does can only lengthen
times. The dense model runs before and after the others of a round (A B A); rounds in which it took
longer the one time than the other tell of the machine and are made again.
"""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from espnet_prune.config import check_range
from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.kaldi_dir import read_data, where
from espnet_prune.decode.recogniser import FULL_SCALE
from espnet_prune.errors import DataError
from espnet_prune.models.espnet.features import run_encoder, sample_rate_of
from espnet_prune.models.family import Transcriber

PATIENCE = 4  # times the repeats and seconds asked for, until a measurement is given up as noisy
LONGEST_PAUSE = 1.0  # seconds of waiting behind a disturbed round
# Recordings shorter than this are left out: nothing is recognised in them.
LEAST_SECONDS = 0.5


@dataclass(frozen=True)
class ProfileConfig:
    """How a system is measured.

    Attributes:
        reference_seconds: length of the utterance for the encoder's time and MACs; recordings
            are joined to it.
        threads: number of threads of torch.
        repeats: repetitions of the encoder's and the greedy measurement; the least counts.
        greedy_utterances: for the greedy real-time factor, of models that have CTC, spread over
            the set.
        joint_utterances: for the joint one, of models that have a decoder.
        joint_repeats: repetitions of the joint measurement.
        least_seconds: that each measurement takes at least, by more repeats where the model is
            small.
        steady_within: by which share the dense model's time before and after the other's may
            differ; what differs by more is measured again, and is no figure where it stays so.
        beam_size: width of the joint search.
        ctc_weight: weight of CTC in it.
        int8: whether the system is measured in dynamic int8 too.
    """

    reference_seconds: float = 10.0
    threads: int = 1
    repeats: int = 5
    greedy_utterances: int = 10
    joint_utterances: int = 3
    joint_repeats: int = 2
    least_seconds: float = 2.0
    steady_within: float = 0.05
    beam_size: int = 10
    ctc_weight: float = 0.3
    int8: bool = False

    def __post_init__(self) -> None:
        check_range("reference_seconds", self.reference_seconds, LEAST_SECONDS, 600)
        check_range("ctc_weight", self.ctc_weight, 0, 1)
        check_range("least_seconds", self.least_seconds, 0, 600)
        check_range("steady_within", self.steady_within, 0.001, 100)
        counts = "threads repeats greedy_utterances joint_utterances joint_repeats beam_size"
        for name in counts.split():
            check_range(name, getattr(self, name), 1, 10000)

    def rounds(self, repeats: int) -> "Rounds":
        """So many rounds, as long and steady as all of them."""
        return Rounds(repeats, self.least_seconds, self.steady_within)


@dataclass(frozen=True)
class Rounds:
    """How long a measurement goes on.

    Attributes:
        repeats: undisturbed rounds, at least.
        least_seconds: that all rounds together take, at least.
        within: by which share the first action's two times of an undisturbed round may differ.
    """

    repeats: int
    least_seconds: float
    within: float


def interleaved(
    actions: Sequence[Callable[[], object]],
    repeats: int,
    least_seconds: float = 0.0,
    warm_up: bool = True,
) -> list[float]:
    """Least seconds of each action, run in turn after one warm-up.

    Args:
        actions: what is timed.
        repeats: repetitions of each, at least.
        least_seconds: goes on until all repeats together took so long; what takes milliseconds
            needs many to meet an undisturbed moment.
        warm_up: whether each runs once untimed; what takes a minute needs none.
    """
    best = [float("inf")] * len(actions)
    for action in actions if warm_up else ():
        action()
    begun, done = time.perf_counter(), 0
    while done < repeats or time.perf_counter() - begun < least_seconds:
        best = [min(b, _seconds_of(a)) for b, a in zip(best, actions, strict=True)]
        done += 1
    return best


def steadily(actions: Sequence[Callable[[], object]], rounds: Rounds) -> list[float] | None:
    """Least seconds of each action by the rounds that nothing disturbed, after one warm-up.

    Args:
        actions: what is timed; the first runs before and after the others of a round.
        rounds: how many, and what a disturbed one is.

    Returns:
        The seconds, or None where too few rounds were undisturbed.
    """
    best = [float("inf")] * len(actions)
    for action in actions:
        action()
    begun, done, disturbed = time.perf_counter(), 0, 0
    while done < rounds.repeats or time.perf_counter() - begun < rounds.least_seconds:
        before, *others, after = (_seconds_of(action) for action in (*actions, actions[0]))
        if abs(before - after) <= rounds.within * min(before, after):
            done += 1
            found = (min(before, after), *others)
            best = [min(b, seconds) for b, seconds in zip(best, found, strict=True)]
            continue
        disturbed += 1
        late = time.perf_counter() - begun >= PATIENCE * rounds.least_seconds
        if done < rounds.repeats and disturbed >= PATIENCE * rounds.repeats and late:
            return None
        time.sleep(min(before, LONGEST_PAUSE))
    return best


def _seconds_of(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def read_speech(data: Path, number: int, rate: int) -> list[numpy.ndarray]:
    """Samples (int16) of ``number`` recordings, or of all if they are fewer.

    Args:
        data: a dump folder.
        number: how many, at equal distances.
        rate: theirs, in Hz.

    Raises:
        DataError: one has another rate, or none is long enough to time.
    """
    entries = list(read_data(data).recordings.items())
    read = (
        read_audio(entry, where(data, name), rate)[0] for name, entry in spread(entries, number)
    )
    speech = [samples for samples in read if len(samples) >= LEAST_SECONDS * rate]
    if not speech:
        raise DataError(
            f"{data}: no recording of at least {LEAST_SECONDS} s to time; give another set"
        )
    return speech


def spread(items: Sequence, number: int) -> list:
    """``number`` items at equal distances, so that not one speaker is all."""
    number = min(number, len(items))
    return [items[index * len(items) // number] for index in range(number)]


def time_encoder(model, speech: Sequence[numpy.ndarray], seconds: float) -> Callable[[], object]:
    """One pass of a model's encoder over recordings joined to so many seconds, to be timed."""
    import torch

    needed = round(seconds * sample_rate_of(model.espnet_prune_config))
    samples = numpy.resize(numpy.concatenate(speech), needed)  # repeats what is too short
    waves = torch.from_numpy(samples.astype(numpy.float32) / FULL_SCALE)[None]
    with torch.no_grad():
        feats, lengths = model._extract_feats(waves, torch.tensor([needed]))
        if model.normalize is not None:
            feats, lengths = model.normalize(feats, lengths)
    return encoder_run(functools.partial(run_encoder, model), feats, lengths)


def encoder_run(encoder: Callable, feats, lengths) -> Callable[[], object]:
    """One pass of an encoder without gradients, to be timed."""
    import torch

    def run() -> object:
        with torch.no_grad():
            return encoder(feats, lengths)

    return run


def decoding_run(
    recogniser: Transcriber, speech: Sequence[numpy.ndarray], mode: str
) -> Callable[[], object]:
    """The recognition of recordings (int16 samples each), one after the other, to be timed."""
    return lambda: [recogniser.transcribe(samples, mode) for samples in speech]
