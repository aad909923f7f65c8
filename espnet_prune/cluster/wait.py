"""Waits for submissions: one question about all of them at a time, and the files of their tasks.

A task's status file says how it ended. Without one, a state that no task comes back from counts
as a failure, after a short grace for slow file systems. A scheduler that doesn't answer says
nothing about the tasks, however long that lasts.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from espnet_prune.cluster.job import Job, read_id, read_job, statuses

GONE = "unknown to the scheduler"
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 8.0  # with the grace of a cancelled task: noticed in less than 15 s
PAUSE_GROWTH = 1.3


class Unreachable(Exception):
    """The scheduler doesn't answer, which says nothing about the jobs."""


class Engine(Protocol):
    """What is asked of a scheduler.

    Attributes:
        cancel_program: what cancels jobs by their numbers.
    """

    cancel_program: str

    def states(self, identities: list[str]) -> Mapping[tuple[str, int], str]:
        """State by job and task; what it has forgotten is missing. Raises Unreachable."""

    def grace_seconds(self, state: str) -> float | None:
        """How long a state may last before it is the end; None for ever."""

    def runs(self, state: str) -> bool:
        """Whether a task of that state has begun."""

    def cancel(self, identities: list[str]) -> None:
        """Cancels the jobs. Raises Unreachable."""


@dataclass(frozen=True)
class Failure:
    """A task that failed for good.

    Attributes:
        job: its submission.
        task: its number, 0 for a single command.
        status: its exit status; None where it left none.
        reason: in words.
    """

    job: Job
    task: int
    status: int | None
    reason: str

    @property
    def log(self) -> Path:
        """The task's log."""
        return Path(self.job.directory, self.job.log_of(self.task))

    def __str__(self) -> str:
        name = f"task {self.task}: " if self.job.variable else ""
        return f"{name}{self.reason}; log {self.log}"


def failure_of(job: Job, task: int, ended: Mapping) -> Failure:
    """That of a task that left its exit status."""
    status = ended["status"]
    again = ", also when it was run once more" if job.has_second_try(status) else ""
    return Failure(job, task, status, f"exit status {status}{again}")


def wait_for(
    folders: list[Path], engine: Engine, sleep: Callable[[float], None] = time.sleep
) -> list[Failure]:
    """Returns when every task of every submission has ended.

    Args:
        folders: folders of the submissions.
        engine: the scheduler.
        sleep: pauses for some seconds.

    Returns:
        The tasks that failed.
    """
    jobs = {folder: read_job(folder) for folder in folders}
    identity = {folder: read_id(folder) or "" for folder in folders}
    waiting = {(folder, task) for folder, job in jobs.items() for task in job.tasks}
    failures: list[Failure] = []
    doubtful: dict[tuple[Path, int], float] = {}  # since when a task's state means the end
    pause = FIRST_PAUSE_SECONDS
    silent = False
    while True:
        for folder in {folder for folder, _ in waiting}:
            for task, ended in statuses(folder).items():
                if (folder, task) in waiting and ended["status"]:
                    failures.append(failure_of(jobs[folder], task, ended))
                waiting.discard((folder, task))
        if not waiting:
            break
        try:
            states = engine.states(sorted({identity[folder] for folder, _ in waiting}))
            silent = False
        except Unreachable as error:
            if not silent:
                print(f"the scheduler doesn't answer, waiting for it ({error})", file=sys.stderr)
            silent = True
        else:
            for folder, task in sorted(waiting):
                state = states.get((identity[folder], task), GONE)
                grace = engine.grace_seconds(state)
                if grace is None:
                    doubtful.pop((folder, task), None)
                elif (
                    time.monotonic() - doubtful.setdefault((folder, task), time.monotonic()) > grace
                ):
                    failures.append(Failure(jobs[folder], task, None, state))
                    waiting.discard((folder, task))
        sleep(min(pause, 1.0) if doubtful else pause)
        pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
    return sorted(failures, key=lambda failure: (failure.log, failure.task))
