"""Back-end local: the tasks as processes of this machine, several at a time."""

import os
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from espnet_prune.cluster.job import Job, record
from espnet_prune.cluster.task import Task, heeded_signals
from espnet_prune.cluster.wait import Failure, failure_of


class LocalRun:
    """The tasks of a job; Ctrl-C and SIGTERM go to those that run, and no other is begun."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self.tasks = [Task(folder, number) for number in job.tasks]
        self.signal = 0

    def run(self, at_once: int) -> list[Failure]:
        """Runs them all; a single command's output goes to the terminal, too."""
        for number in heeded_signals():
            signal.signal(number, self._cancel)
        signal.signal(signal.SIGTSTP, self._pause)
        with ThreadPoolExecutor(at_once) as pool:
            failures = list(pool.map(self._run_one, self.tasks))
        return [failure for failure in failures if failure is not None]

    def _run_one(self, task: Task) -> Failure | None:
        if self.signal:
            return None
        with open(Path(self.job.directory, self.job.log_of(task.number)), "ab") as log:
            status = task.run(log, echo=not self.job.variable)
            if task.wants_another_run:
                task.note_failure()
                status = task.run(log)
        return failure_of(self.job, task.number, task.ended) if status else None

    def _cancel(self, number: int, frame) -> None:
        self.signal = number
        for task in self.tasks:
            task.cancel(number, frame)

    def _pause(self, *unused) -> None:
        """Ctrl-Z stops the commands, too, until all go on."""
        for task in self.tasks:
            task.send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        for task in self.tasks:
            task.send(signal.SIGCONT)


def run(job: Job, at_once: int) -> list[Failure]:
    """Runs a job here.

    Args:
        job: what to run.
        at_once: how many tasks at a time.

    Returns:
        The tasks that failed for good.
    """
    with tempfile.TemporaryDirectory(prefix="submit-") as folder:
        record(job, Path(folder))
        local_run = LocalRun(job, Path(folder))
        failures = local_run.run(at_once)
    if local_run.signal:  # as a shell expects of a program that a signal ended
        signal.signal(local_run.signal, signal.SIG_DFL)
        os.kill(os.getpid(), local_run.signal)
    return failures
