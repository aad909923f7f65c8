"""What a training asks about the job that it runs in: to stop soon, or is another copy running.

A scheduler's job (``espnet_prune.cluster``) says by two environment variables where its files are.
Outside a job every answer is no.
"""

import json
import os
from pathlib import Path

from espnet_prune.errors import EspnetPruneError, TrainingError

TASK = "ESPNET_PRUNE_TASK"
TOKEN = "ESPNET_PRUNE_TASK_TOKEN"
STOPPED_EXIT = 75  # sysexits.h, EX_TEMPFAIL: to be tried again


class StoppedOnRequest(EspnetPruneError):
    """The job is about to end; everything is saved, and the same command goes on."""


def stop_requested() -> bool:
    """Whether the job has been asked to save and end."""
    task = os.environ.get(TASK)
    return task is not None and Path(f"{task}.stop").exists()


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
