"""Saves a training within its epochs, so that what ends it without a word costs minutes.

ESPnet saves at the end of an epoch, which for a large corpus is hours away. Between two updates,
at most every ``SAVE_SECONDS`` and once when the job is asked to stop, this keeps beside its
checkpoint: the states of weights, optimisers, schedules and gradient scaler, of every random
generator, and what the epoch has reported so far. The same command passes over the batches that
are done, so that workers draw what they would have drawn, and goes on: bit-equal to a training that
was never ended.
"""

import logging
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from espnet2.train.reporter import Average, SubReporter, WeightedAverage
from torch import distributed, nn

from espnet_prune.errors import ConfigError
from espnet_prune.io_torch import read_torch, write_torch
from espnet_prune.job_control import check_is_writer, stop_requested
from espnet_prune.train.distributed import is_first, mean_over_processes, process_rank, processes
from espnet_prune.train.training import WITHIN

logger = logging.getLogger(__name__)
SAVE_SECONDS = 900.0
LOOK_SECONDS = 5.0  # between two looks for a request to stop
VARIABLE = "ESPNET_PRUNE_SAVE_SECONDS"


@dataclass(frozen=True)
class Trained:
    """What an update changes."""

    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    schedulers: Sequence[Any]
    scaler: Any = None

    def state(self) -> dict:
        """As ESPnet's checkpoint has it."""
        return {
            "model": self._plain().state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [s and s.state_dict() for s in self.schedulers],
            "scaler": self.scaler and self.scaler.state_dict(),
        }

    def load(self, state: Mapping) -> None:
        """Takes a state back."""
        self._plain().load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for scheduler, saved in zip(self.schedulers, state["schedulers"], strict=True):
            if scheduler is not None:
                scheduler.load_state_dict(saved)
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])

    def put_back(self) -> None:
        """Puts back weights that are still disturbed, since their update was skipped."""
        disturbed = getattr(self._plain(), "disturbed", None)
        if disturbed is not None:
            disturbed.restore()

    def _plain(self) -> nn.Module:
        return getattr(self.model, "module", self.model)  # of several processes


class WithinEpoch:
    """The saved state of one epoch.

    Args:
        folder: the training's.
        trained: weights, optimisers and so on.
        reporter: ESPnet's, of this epoch.
        recorder: has ``rows`` and ``batches``, which the state keeps.
        accumulate: batches an update.
    """

    def __init__(
        self, folder: Path, trained: Trained, reporter: SubReporter, recorder: Any, accumulate: int
    ) -> None:
        self.path = folder / WITHIN
        self.trained = trained
        self.reporter = reporter
        self.recorder = recorder
        self.accumulate = accumulate
        self.pause = save_seconds()
        self.done = 0
        self.random: Mapping | None = None
        self.began = self.saved = self.looked = time.perf_counter()
        self.asked_to_stop = False

    def resume(self) -> float:
        """Takes back what was saved of this very epoch, if anything was.

        Returns:
            Seconds that were spent on it before.
        """
        state = self._read()
        if state is None:
            return 0.0
        self.trained.load(state)
        self.done, self.random = state["batches"], state["random"][process_rank()]
        self.recorder.rows, self.recorder.batches = state["rows"], self.done
        self.reporter.total_count += self.done
        self.reporter.count = self.done
        for name, values in state["reported"].items():
            self.reporter.stats[name] = [_reported(value) for value in values]
        self.reporter.start_time -= state["seconds"]
        self.began -= state["seconds"]
        logger.info("epoch %d goes on after batch %d", self.reporter.epoch, self.done)
        return state["seconds"]

    def _read(self) -> dict | None:
        if not self.path.exists():
            return None
        state = read_torch(self.path)
        if state["epoch"] != self.reporter.epoch:
            return None
        if len(state["random"]) != processes():
            logger.warning(
                "%s: saved by %d processes, there are %d: the epoch begins anew",
                self.path,
                len(state["random"]),
                processes(),
            )
            return None
        return state

    def batches(self, iterator: Iterable) -> "Batches":
        """The epoch's batches that are left, saving between them."""
        return Batches(self, iterator)

    def is_due(self) -> bool:
        """Whether to save; the first process decides."""
        due = is_first() and (self._is_time() or self._is_asked())
        return mean_over_processes({"due": float(due)}, 1.0)["due"] > 0

    def _is_time(self) -> bool:
        return time.perf_counter() - self.saved >= self.pause

    def _is_asked(self) -> bool:
        """Whether the job is about to end, for the first time: its epoch may not end in time."""
        if self.asked_to_stop or time.perf_counter() - self.looked < LOOK_SECONDS:
            return False
        self.looked = time.perf_counter()
        self.asked_to_stop = stop_requested()
        return self.asked_to_stop

    def save(self, batches: int) -> None:
        """Writes the state after so many batches."""
        generators = _of_all_processes(random_state())
        if is_first():
            check_is_writer(self.path)
            state = {
                "epoch": self.reporter.epoch,
                "batches": batches,
                "seconds": time.perf_counter() - self.began,
                "rows": self.recorder.rows,
                "reported": {
                    name: [_values(value) for value in values]
                    for name, values in self.reporter.stats.items()
                },
                "random": generators,
                **self.trained.state(),
            }
            write_torch(state, self.path)
        self.saved = time.perf_counter()


class Batches:
    """An iterable with a length, as ESPnet's trainer wants."""

    def __init__(self, epoch: WithinEpoch, iterator: Iterable) -> None:
        self.epoch = epoch
        self.iterator = iterator

    def __len__(self) -> int:
        return len(self.iterator)

    def __iter__(self) -> Iterator:
        epoch, number = self.epoch, len(self)
        items = iter(self.iterator)
        for _ in range(epoch.done):
            next(items)
        if epoch.random is not None:
            set_random_state(epoch.random)
        for done, item in enumerate(items, epoch.done + 1):
            yield item
            if done % epoch.accumulate:
                continue
            epoch.trained.put_back()  # whether it saves or not, so that both go on alike
            # not before the last update: an epoch without one would be an error
            if done + epoch.accumulate <= number and epoch.is_due():
                epoch.save(done)


def save_seconds() -> float:
    """Least time between two saves within an epoch, from the environment if it says.

    Raises:
        ConfigError: it isn't a number of seconds.
    """
    text = os.environ.get(VARIABLE, str(SAVE_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise ConfigError(f"{VARIABLE}={text}: a number of seconds was expected, such as 900")
    return seconds


def saved_batches(folder: Path, epoch: int) -> int:
    """How many batches of an epoch are saved; 0 for none."""
    path = folder / WITHIN
    if not path.exists():
        return 0
    state = read_torch(path)
    return state["batches"] if state["epoch"] == epoch else 0


def random_state() -> dict:
    """States of every generator that a training draws from, in plain values."""
    name, keys, position, has_gauss, gauss = numpy.random.get_state()
    version, words, gauss_next = random.getstate()
    return {
        "python": [version, list(words), gauss_next],
        "numpy": [name, keys.tolist(), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def set_random_state(state: Mapping) -> None:
    """Puts the generators where they were."""
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
    name, keys, position, has_gauss, gauss = state["numpy"]
    keys = numpy.array(keys, dtype=numpy.uint32)
    numpy.random.set_state((name, keys, position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _of_all_processes(value: Any) -> list:
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def _values(value: Average | WeightedAverage) -> list:
    return [value.value, value.weight] if isinstance(value, WeightedAverage) else [value.value]


def _reported(values: list) -> Average | WeightedAverage:
    return WeightedAverage(*values) if len(values) == 2 else Average(*values)
