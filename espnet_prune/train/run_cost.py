"""What the trainings of a recipe cost: arithmetic over measured seconds a batch.

Hours of a training are its batches times the seconds of one, its updates times the seconds of the
optimisers' step, and its validations, which are forward passes over the development set. Loading
data is left out: workers do it meanwhile. So is what several GPUs spend on talking to each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from espnet_prune.config import check_range

SAMPLE_RATE = 16000
SECONDS = 3600.0
GIB, MIB = 2**30, 2**20


@dataclass(frozen=True)
class Corpus:
    """How much speech a recipe trains on and validates on.

    Attributes:
        train_hours: hours of the training set, before speed perturbation.
        valid_hours: hours of the development set.
        speed_factors: as in the recipe; empty for the original alone.
        utterance_seconds: mean length of an utterance.
        tokens_per_second: tokens a second of its text.
    """

    train_hours: float
    valid_hours: float
    speed_factors: tuple[float, ...] = (1.0,)
    utterance_seconds: float = 12.3
    tokens_per_second: float = 4.0

    def __post_init__(self) -> None:
        for name in ("train_hours", "utterance_seconds", "tokens_per_second"):
            check_range(f"--{name}", getattr(self, name), 1e-6, 1e9)
        check_range("--valid_hours", self.valid_hours, 0, 1e9)
        for factor in self.speed_factors:
            check_range("--speed_factors", factor, 0.1, 10.0)

    @property
    def passed_hours(self) -> float:
        """Length of one pass over the training set at all its speeds."""
        return self.train_hours * sum(1 / factor for factor in self.speed_factors or (1.0,))


@dataclass(frozen=True)
class Step:
    """What was measured of one training.

    Attributes:
        batch_samples: audio samples of the measured batch.
        batch_seconds: forward and backward pass over it.
        forward_seconds: forward pass alone, without gradients.
        update_seconds: step of the optimisers.
        peak_bytes: largest use of memory, of the GPU or else of the whole process.
        weight_bytes: bytes of what a checkpoint keeps of the model.
        optimizer_bytes: bytes of what it keeps of the optimisers.
    """

    batch_samples: int
    batch_seconds: float
    forward_seconds: float
    update_seconds: float
    peak_bytes: int
    weight_bytes: int
    optimizer_bytes: int


@dataclass(frozen=True)
class Schedule:
    """How long a training is, by its configuration.

    Attributes:
        batch_bins: samples of a batch, over all processes.
        max_epoch: number of epochs, each with a validation.
        num_iters_per_epoch: batches an epoch; None for one pass over the training set.
        accum_grad: batches an update.
        keep_nbest_models: states that stay beside the last one.
    """

    batch_bins: int
    max_epoch: int
    num_iters_per_epoch: int | None = None
    accum_grad: int = 1
    keep_nbest_models: int = 10

    def batches(self, corpus: Corpus) -> float:
        """Number of batches in the whole training."""
        if self.num_iters_per_epoch is not None:
            return self.max_epoch * self.num_iters_per_epoch
        samples = corpus.passed_hours * SECONDS * SAMPLE_RATE
        return self.max_epoch * samples / self.batch_bins


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        stage: its number and name.
        batches: number of batches of one such training.
        step_seconds: a batch of the configured size takes on a device.
        hours: hours of one such training.
        runs: how many systems train so.
        disk_bytes: bytes of all of them.
        peak_bytes: bytes of the measured batch.
    """

    stage: str
    batches: int
    step_seconds: float
    hours: float
    runs: int
    disk_bytes: int
    peak_bytes: int


def cost(
    stage: str, step: Step, schedule: Schedule, corpus: Corpus, runs: int = 1, processes: int = 1
) -> Row:
    """A line of the table.

    Args:
        stage: what the line is called.
        step: what was measured.
        schedule: from the configuration.
        corpus: the speech.
        runs: number of trainings of this kind.
        processes: devices that share each batch.

    Returns:
        The line; ``hours`` are of one training, on so many devices.
    """
    share = schedule.batch_bins / processes / step.batch_samples
    batches = schedule.batches(corpus)
    valid_samples = corpus.valid_hours * SECONDS * SAMPLE_RATE / processes
    validation = valid_samples / step.batch_samples * step.forward_seconds
    seconds = (
        batches * share * step.batch_seconds
        + batches / max(1, schedule.accum_grad) * step.update_seconds
        + schedule.max_epoch * validation
    )
    # checkpoint, the last and the best states, their average, the model's folder and ESPnet's
    states = 1 + 1 + schedule.keep_nbest_models + 1 + 2
    disk = runs * (states * step.weight_bytes + step.optimizer_bytes)
    return Row(
        stage,
        round(batches),
        share * step.batch_seconds,
        seconds / SECONDS,
        runs,
        disk,
        step.peak_bytes,
    )


def table(rows: Sequence[Row]) -> str:
    """The lines as Markdown, with their sum."""
    head = ["stage", "batches", "s a batch", "h each", "runs", "h in all", "disk GiB", "memory MiB"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        cells = [row.stage, str(row.batches), f"{row.step_seconds:.2f}", _hours(row.hours)]
        cells += [str(row.runs), _hours(row.hours * row.runs), f"{row.disk_bytes / GIB:.1f}"]
        cells.append(f"{row.peak_bytes / MIB:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    hours = sum(row.hours * row.runs for row in rows)
    disk = sum(row.disk_bytes for row in rows) / GIB
    lines.append(f"| all | | | | | {_hours(hours)} | {disk:.1f} | |")
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 100 else f"{hours:.3g}"


def record(rows: Sequence[Row], corpus: Corpus, about: Mapping) -> dict:
    """The same for a JSON file; ``about`` names the ``devices`` that share each batch."""
    hours = sum(row.hours * row.runs for row in rows)
    return {
        **about,
        "corpus": asdict(corpus),
        "stages": [asdict(row) for row in rows],
        "hours": hours,
        "device_hours": hours * about["devices"],
    }
