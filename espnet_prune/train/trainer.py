"""ESPnet's trainer with guarantees: whole files, exact resume, no silent NaN, every loss on record.

ESPnet checkpoints at the end of an epoch and seeds each epoch by its number, so a killed training
that starts again from the last checkpoint repeats the very same updates; ``within_epoch`` saves
between them, too. What could break that is mended here: half-written checkpoints, a kill between a
checkpoint and its epoch's file, and gradients that an epoch leaves unused for the next one.
"""

import contextlib
import csv
import io
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from espnet2.train.trainer import Trainer
from tqdm import tqdm

from espnet_prune.errors import ModelError, TrainingError
from espnet_prune.io_atomic import atomic_path, read_json, write_json, write_text
from espnet_prune.io_torch import read_torch, write_torch
from espnet_prune.job_control import (
    StoppedOnRequest,
    begin_training,
    check_is_writer,
    note_batches,
    stop_requested,
)
from espnet_prune.train.criterion import check_criterion
from espnet_prune.train.distributed import is_first, mean_over_processes, wait_for_all
from espnet_prune.train.precision import one_scale
from espnet_prune.train.traffic import compress_traffic, record_traffic
from espnet_prune.train.training import CHECKPOINT, WITHIN
from espnet_prune.train.within_epoch import Trained, WithinEpoch, saved_batches

logger = logging.getLogger(__name__)
LATEST = "latest.pth"
PROGRESS = "progress.csv"
SECONDS = "train_seconds.json"
LOOK_SECONDS = 5.0  # between two looks, within an epoch, for a request to stop


class GuardedTrainer(Trainer):
    """Trains as ESPnet does and keeps the promises above.

    Attributes:
        averages: whether what comes of the training are the weights of its best epochs.
    """

    averages: ClassVar[bool] = True

    @classmethod
    def run(cls, model, trainer_options, **keywords) -> None:
        """The whole training, from the last checkpoint if there is one."""
        folder = Path(trainer_options.output_dir)
        if is_first() and (done := repair_checkpoints(folder)) < trainer_options.max_epoch:
            saved = saved_batches(folder, done + 1)
            if not saved:  # of another epoch, which would be met again
                (folder / WITHIN).unlink(missing_ok=True)
            begin_training(folder, done, saved)
        wait_for_all()
        with atomic_torch_save():
            super().run(model=model, trainer_options=trainer_options, **keywords)
        if is_first():
            (folder / WITHIN).unlink(missing_ok=True)

    @classmethod
    def train_one_epoch(
        cls, model, iterator, optimizers, schedulers, scaler, reporter, options, **keywords
    ) -> bool:
        """One epoch, or what is left of it; each update recorded and checked."""
        stop_if_requested(reporter.epoch, options)
        cls._epoch_started = time.perf_counter()
        for optimizer in optimizers:  # of batches short of accum_grad; no checkpoint has them
            optimizer.zero_grad()
        recorder = _Recorder(reporter.epoch, options, len(iterator))
        trained = Trained(model, optimizers, schedulers, scaler)
        folder = Path(options.output_dir)
        epoch = WithinEpoch(folder, trained, reporter, recorder, recorder.accumulate)
        cls._epoch_started -= epoch.resume()
        compress_traffic(model)
        handle = model.register_forward_hook(recorder, with_kwargs=True)
        try:
            with one_scale(scaler, optimizers):
                invalid = super().train_one_epoch(
                    model=model,
                    iterator=epoch.batches(iterator),
                    optimizers=optimizers,
                    schedulers=schedulers,
                    scaler=scaler,
                    reporter=reporter,
                    options=options,
                    **keywords,
                )
        finally:
            handle.remove()
            recorder.bar.close()
        if not recorder.rows:
            raise TrainingError(
                f"{options.output_dir}: epoch {reporter.epoch} had {recorder.batches} batches, too "
                f"few for an update of {recorder.accumulate} (accum_grad); lower accum_grad, "
                "batch_bins or batch_size, or give more data"
            )
        if invalid:  # ESPnet would stop here and average the epochs before, as if it were done
            raise TrainingError(
                f"{options.output_dir}: epoch {reporter.epoch}: no gradient was finite, the model "
                "wasn't updated; lower the learning rate and train anew"
            )
        record_traffic(model, folder)
        if is_first():
            recorder.write(Path(options.output_dir))
        return invalid

    @classmethod
    def validate_one_epoch(cls, reporter, options, **keywords) -> None:
        """The validation; then the epoch's line and its seconds."""
        super().validate_one_epoch(reporter=reporter, options=options, **keywords)
        if cls.averages:
            check_criterion(options, reporter.stats)
        if not is_first():
            return
        folder = Path(options.output_dir)
        record = read_json(folder / SECONDS) if (folder / SECONDS).exists() else {}
        epochs = {k: v for k, v in record.get("epochs", {}).items() if int(k) < reporter.epoch}
        epochs[str(reporter.epoch)] = round(time.perf_counter() - cls._epoch_started, 3)
        write_json(folder / SECONDS, {"seconds": round(sum(epochs.values()), 3), "epochs": epochs})
        logger.info("epoch %d took %.1f s", reporter.epoch, epochs[str(reporter.epoch)])


def stop_if_requested(epoch: int, options) -> None:
    """Ends a training whose job is about to end, before an epoch that it would lose.

    Args:
        epoch: the one to begin; the checkpoint has all before it.
        options: ESPnet's.

    Raises:
        StoppedOnRequest: one of the processes was asked to stop.
    """
    asked = mean_over_processes({"asked": float(stop_requested())}, 1.0)["asked"]
    if asked:
        raise StoppedOnRequest(
            f"{options.output_dir}: {epoch - 1} of {options.max_epoch} epochs are saved; "
            "the same command goes on from there"
        )


class _Recorder:
    """A forward hook that keeps a row an update and stops at a loss that is not finite.

    Under ``accum_grad`` a row is the mean of the update's batches; batches at the end of an epoch
    that don't make up an update have none.
    """

    def __init__(self, epoch: int, options, batches: int) -> None:
        self.epoch = epoch
        self.accumulate = max(1, options.accum_grad)
        self.rows: list[dict] = []
        self.batches = 0
        self.of = batches
        self.began = self.looked = time.monotonic()
        self.pending: list[dict] = []
        self.bar = tqdm(
            total=batches,
            desc=f"epoch {epoch}",
            leave=False,
            disable=not (is_first() and sys.stderr.isatty()),
        )

    def __call__(self, model, inputs, keywords, output) -> None:
        if not model.training:
            return
        loss, stats, weight = output
        self.batches += 1
        numbers = {k: _mean(v, weight) for k, v in stats.items() if v is not None}
        value = _mean(loss, weight)
        if not math.isfinite(value):
            parts = ", ".join(f"{k} {v:g}" for k, v in numbers.items() if not math.isfinite(v))
            utterances = ", ".join(list(keywords.get("utt_id", ()))[:4])
            raise TrainingError(
                f"epoch {self.epoch}, batch {self.batches}: the loss is {value:g} "
                f"(not finite: {parts or 'the sum'}; utterances {utterances} ...); lower the "
                "learning rate, or look at these utterances"
            )
        weights = float(torch.as_tensor(weight).sum())
        self.pending.append(mean_over_processes(numbers, weights))
        if len(self.pending) == self.accumulate:
            self.rows.append({"epoch": self.epoch, "update": len(self.rows) + 1, **self._row()})
            self.pending = []
        self.bar.update()
        self.bar.set_postfix(loss=f"{value:.3f}")
        self._look_for_a_stop()

    def _look_for_a_stop(self) -> None:
        """If the job's end comes within the epoch, notes how far it is."""
        now = time.monotonic()
        if now - self.looked >= LOOK_SECONDS:
            self.looked = now
            if is_first() and stop_requested():
                note_batches(self.batches, self.of, now - self.began)

    def _row(self) -> dict[str, float]:
        """The mean of each number over the update's batches that have it."""
        values: dict[str, list[float]] = {}
        for numbers in self.pending:
            for key, number in numbers.items():
                values.setdefault(key, []).append(number)
        return {key: sum(numbers) / len(numbers) for key, numbers in values.items()}

    def write(self, folder: Path) -> None:
        """Appends the rows to progress.csv; those of later epochs, from before a kill, go."""
        path = folder / PROGRESS
        old: list[dict] = []
        if path.exists():
            with path.open(newline="") as file:
                old = [row for row in csv.DictReader(file) if int(row["epoch"]) < self.epoch]
        rows = [*old, *self.rows]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())


def _mean(value: torch.Tensor | float, weight: torch.Tensor | float) -> float:
    """A number of the batch; the mean by weight of several GPUs', as ESPnet takes it."""
    value = torch.as_tensor(value).detach()
    if value.numel() == 1:
        return value.item()
    weight = torch.as_tensor(weight, dtype=value.dtype, device=value.device)
    return (value * weight / weight.sum()).sum().item()


def repair_checkpoints(folder: Path) -> int:
    """Puts an output folder into the state that ESPnet's resume expects.

    A process killed after it wrote the checkpoint leaves the epoch's own file unwritten, or
    ``latest.pth`` leading to the epoch before; after the last epoch nothing would write them again,
    and the cut reads ``latest.pth``.

    Returns:
        The last epoch that is finished, 0 for none.

    Raises:
        TrainingError: the checkpoint can't be read; says what to do.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    try:
        states = read_torch(path)
        weights, epoch = states["model"], int(states["reporter"]["epoch"])
    except (ModelError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path}: the checkpoint can't be read ({error}); remove it to train from the start"
        ) from error
    own, latest = folder / f"{epoch}epoch.pth", folder / LATEST
    if not epoch:
        return 0
    if not own.exists():
        write_torch(weights, own)
    if not latest.is_symlink() or latest.readlink() != Path(own.name):
        with atomic_path(latest) as temporary:
            temporary.symlink_to(own.name)
    return epoch


@contextlib.contextmanager
def atomic_torch_save() -> Iterator[None]:
    """Within it, ``torch.save`` to a path writes beside it and renames.

    ESPnet saves with ``torch.save(state, path)``: a kill in the middle would leave half a
    checkpoint, the only one. There is no hook for it, so the function itself is replaced.
    """
    stock = torch.save

    def save(value, target, *arguments, **keywords) -> None:
        if isinstance(target, (str, os.PathLike)):
            check_is_writer(target)
            write_torch(value, target, lambda *both: stock(*both, *arguments, **keywords))
        else:
            stock(value, target, *arguments, **keywords)

    torch.save = save
    try:
        yield
    finally:
        torch.save = stock
