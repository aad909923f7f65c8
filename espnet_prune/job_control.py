"""What a training asks about the job that it runs in.

To stop soon? Is another copy running? Did the run before, in this job, get anywhere?

A scheduler's job (``espnet_prune.cluster``) says by two environment variables where its files are.
Outside a job every answer is no.
"""

import json
import os
from pathlib import Path

from espnet_prune.errors import EspnetPruneError, TrainingError
from espnet_prune.io_atomic import write_json

TASK = "ESPNET_PRUNE_TASK"
TOKEN = "ESPNET_PRUNE_TASK_TOKEN"
STOPPED_EXIT = 75  # sysexits.h, EX_TEMPFAIL: to be tried again


class StoppedOnRequest(EspnetPruneError):
    """The job is about to end; everything is saved, and the same command goes on."""


def stop_requested() -> bool:
    """Whether the job has been asked to save and end."""
    task = os.environ.get(TASK)
    return task is not None and Path(f"{task}.stop").exists()


def begin_training(folder: Path, epoch: int, batches: int = 0) -> None:
    """Notes where a training begins, and makes sure that it was further back at the last start.

    Args:
        folder: the training's.
        epoch: the last one that is finished, 0 for none.
        batches: of the next one that are saved.

    Raises:
        TrainingError: this job's run before began at the same batch and came to its time limit, so
            that this one would, too.
    """
    task = os.environ.get(TASK)
    if task is None:
        return
    here = {"folder": str(folder), "epoch": epoch, "saved_batches": batches}
    before, stopped = _read(f"{task}.training"), _read(f"{task}.stopped")
    if stopped.get("time_limit") and here.items() <= before.items():
        raise TrainingError(
            f"{folder}: epoch {epoch + 1} is longer than this job may run: the run before was "
            f"stopped after {stopped['seconds']:.0f} s{_reached(before)}, and nothing was saved "
            "meanwhile. Give the job more time (--time, in cmd.sh), save more often "
            "(export ESPNET_PRUNE_SAVE_SECONDS=300), or make epochs shorter: a lower "
            "num_iters_per_epoch, and more max_epoch, in the training's configuration"
        )
    write_json(Path(f"{task}.training"), here)


def note_batches(done: int, batches: int, seconds: float) -> None:
    """Keeps how far an epoch was when its job was asked to stop, for ``begin_training``'s error.

    Args:
        done: number of batches that are done.
        batches: of the whole epoch.
        seconds: that they took.
    """
    path = Path(f"{os.environ[TASK]}.training")
    write_json(path, {**_read(path), "done": done, "batches": batches, "seconds": seconds})


def _reached(record: dict) -> str:
    if "done" not in record:
        return ""
    whole = record["seconds"] * record["batches"] / record["done"]
    return (
        f" with {record['done']} of its {record['batches']} batches done in "
        f"{record['seconds']:.0f} s, so that it takes about {whole:.0f} s"
    )


def _read(path: str | Path) -> dict:
    """A record of this job; empty where there is none."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        return {}


def check_is_writer(path: str | os.PathLike) -> None:
    """Makes sure that no newer copy of this job has begun, before ``path`` is written.

    A machine that lost its network may still run a job that was queued again elsewhere.

    Raises:
        TrainingError: a newer copy writes this folder now.
    """
    task = os.environ.get(TASK)
    if task is None:
        return
    try:
        started = json.loads(Path(f"{task}.started").read_text())
    except FileNotFoundError:  # its records were removed while it runs: nobody else's either
        return
    if started["token"] != os.environ.get(TOKEN):
        raise TrainingError(
            f"{path}: a newer copy of this job runs on {started['host']} and writes here; "
            "this one ends"
        )
