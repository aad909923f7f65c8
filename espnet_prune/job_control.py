"""What a training asks about the job that it runs in, and whether another writes its folder.

To stop soon? Is another copy running? Did the run before, in this job, get anywhere?

A scheduler's job (``espnet_prune.cluster``) says by two environment variables where its files are.
Outside a job every answer is no. A folder's lock holds in jobs and outside of them.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from espnet_prune.errors import EspnetPruneError, TrainingError
from espnet_prune.io_atomic import write_json

logger = logging.getLogger(__name__)
LOCK = ".lock"
LOCK_SECONDS = 40.0  # a cancelled training may take Slurm's KillWait, 30 s, to end
LOCK_PAUSE_SECONDS = 0.5
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
        batches: how many batches of the next one are saved.

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
        batches: number of batches of the whole epoch.
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


@contextlib.contextmanager
def only_writer(folder: Path, doing: str = "trains") -> Iterator[None]:
    """Keeps other writers out of a folder; whatever ends this process, the kernel lets them in.

    The lock is POSIX's (``fcntl``) and not BSD's (``flock``), which the processes that load data
    would inherit and still hold when this one is killed. An older copy of this job, on a machine
    that lost its network, keeps out nobody: see ``check_is_writer``. On a file system without
    locks this does nothing.

    Args:
        folder: the training's; is made.
        doing: what its writers do there, for messages.

    Raises:
        TrainingError: another process does so, too, and doesn't end within ``LOCK_SECONDS``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    with (folder / LOCK).open("ab+", buffering=0) as file:
        told = False
        while not _locked(file):
            holder = _holder(file)
            if TASK in os.environ and holder.get("task") == os.environ[TASK]:
                break
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"{folder}: {_name(holder)} {doing} here; wait for its end, or stop it, then "
                    "give the same command again. Where its machine is lost, remove "
                    f"{folder / LOCK}"
                )
            if not told:
                logger.info("%s: waiting for %s, which %s here", folder, _name(holder), doing)
            told = True
            time.sleep(LOCK_PAUSE_SECONDS)
        yield


def _locked(file: BinaryIO) -> bool:
    """Whether no other process has the lock; if so, it is this one's, with its name in the file."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        return False
    except OSError:  # no locks here: nobody has one
        return True
    host, task = socket.gethostname(), os.environ.get(TASK)
    holder = {"host": host, "process": os.getpid(), "task": task}
    with contextlib.suppress(OSError):  # of a full disk; what the training writes says so better
        file.truncate(0)
        file.write(json.dumps(holder).encode())
    return True


def _holder(file: BinaryIO) -> dict:
    """What the process that has the lock wrote; empty where it has just begun."""
    file.seek(0)
    try:
        return json.loads(file.read())
    except ValueError:
        return {}


def _name(holder: dict) -> str:
    if not holder:
        return "another process"
    return f"process {holder['process']} on {holder['host']}"
