"""Submits a command, waits for its end, says what failed; ``utils/submit.py`` is its program."""

import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from espnet_prune.cluster import local
from espnet_prune.cluster.job import new_folder, read_id, read_job, record, statuses, write_id
from espnet_prune.cluster.request import USAGE, Request, parse
from espnet_prune.cluster.sge import GridEngine
from espnet_prune.cluster.site import read_site
from espnet_prune.cluster.slurm import Slurm
from espnet_prune.cluster.task import heeded_signals
from espnet_prune.cluster.wait import Engine, Failure, Unreachable, wait_for
from espnet_prune.errors import USERS_ERROR, EnvironmentProblem, EspnetPruneError

ENGINES = {"slurm": Slurm, "sge": GridEngine}
CANCEL_SECONDS = 200
CANCEL_PAUSE_SECONDS = 2
SHOWN_LOG_LINES = 5
SHOWN_FAILURES = 10
Answer = TypeVar("Answer")


class Interrupted(Exception):
    """A signal asks this program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def main(arguments: Sequence[str]) -> int:
    """The exit status of the command, or 1 where one of several failed."""
    if not arguments or arguments[0] in ("--help", "-h"):
        print(USAGE, end="")
        return 0 if arguments else 2
    try:
        request = parse(arguments)
        if request.job.backend == "local":
            failures = local.run(request.job, _at_once(request))
            return report(failures, len(request.job.tasks), quiet=not request.job.variable)
        return _run_elsewhere(request)
    except (EspnetPruneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USERS_ERROR


def _at_once(request: Request) -> int:
    return max(1, int(request.options.get("max_jobs_run", os.cpu_count() or 1)))


def _run_elsewhere(request: Request) -> int:
    with _Signals() as signals:
        folder = submit(request)
        signals.check_with([folder])
        if not request.wait:
            print(folder)
            return 0
        failures = _wait([folder], signals)
    return report(failures, len(request.job.tasks))


def submit(request: Request) -> Path:
    """Submits and keeps the scheduler's number.

    Returns:
        The submission's folder.

    Raises:
        ConfigError: the site's file or the scheduler doesn't take an option.
        EnvironmentProblem: there is no scheduler.
    """
    site = read_site(request.config)
    folder = new_folder(request.job)
    record(request.job, folder)
    try:
        engine = ENGINES[request.job.backend]()
        write_id(folder, engine.submit(request.job, folder, site, request.options))
    except EspnetPruneError:
        shutil.rmtree(folder)
        raise
    return folder


def engine_of(folders: Sequence[Path]) -> Engine:
    """The scheduler that submissions went to."""
    backend = read_job(folders[0]).backend
    if backend == "slurm":
        return Slurm({read_id(folder) or "": folder.name for folder in folders})
    return ENGINES[backend]()


def unfinished(folders: Sequence[Path]) -> list[Path]:
    """The submissions with a task that is queued or runs.

    Raises:
        EnvironmentProblem: the scheduler gives no answer.
    """
    asked = _not_ended(folders)
    if not asked:
        return []
    try:
        return _active(asked)
    except Unreachable as error:
        raise EnvironmentProblem(
            f"the scheduler doesn't answer: {error}; give the command again when it does"
        ) from error


def _not_ended(folders: Sequence[Path]) -> list[Path]:
    """What was submitted and has a task that left no exit status."""
    return [f for f in folders if read_id(f) and len(statuses(f)) < len(read_job(f).tasks)]


def _active(folders: Sequence[Path]) -> list[Path]:
    """Those with a task that the scheduler has queued or runs. Raises Unreachable."""
    engine = engine_of(folders)
    states = engine.states(_numbers(folders))
    alive = {identity for (identity, _), s in states.items() if engine.grace_seconds(s) is None}
    return [folder for folder in folders if read_id(folder) in alive]


def wait_or_cancel(folders: list[Path]) -> list[Failure]:
    """Waits for submissions; Ctrl-C, SIGTERM and SIGHUP cancel them and end this program.

    A signal that this program was started to ignore stays ignored: nohup outlives the terminal.
    """
    with _Signals() as signals:
        return _wait(folders, signals)


def _wait(folders: list[Path], signals: "_Signals") -> list[Failure]:
    try:
        signals.interrupt_at_once()
        return wait_for(folders, engine_of(folders), signals.sleep)
    except Interrupted:
        signals.check_with(folders)
        raise
    except Exception:  # a bug or a full disk: nobody would look after the jobs any more
        cancel(folders)
        raise


class _Signals:
    """Holds the signals that would end this program back, or makes them exceptions."""

    def __init__(self) -> None:
        self.received = 0
        self.at_once = False

    def __enter__(self) -> "_Signals":
        self.before = {n: signal.signal(n, self._receive) for n in heeded_signals()}
        return self

    def __exit__(self, *unused) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        if self.at_once and not self.received:
            self.received = number
            raise Interrupted(number)
        self.received = number

    def interrupt_at_once(self) -> None:
        """From now on a signal, also one held back, raises Interrupted."""
        self.at_once = True
        if self.received:
            raise Interrupted(self.received)

    def sleep(self, seconds: float) -> None:
        """A pause, also ended by a signal whose exception got lost in a callback of Python's."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.received:
                raise Interrupted(self.received)
            time.sleep(min(left, 0.5))

    def check_with(self, folders: Sequence[Path]) -> None:
        """Ends this program, and the submissions before it, if a signal came."""
        if not self.received:
            return
        cancel(folders)
        signal.signal(self.received, signal.SIG_DFL)
        os.kill(os.getpid(), self.received)


def cancel(folders: Sequence[Path], active_only: bool = False, again: str = "") -> bool:
    """Cancels submissions, however long the scheduler takes to answer, within limits.

    Args:
        folders: folders of the submissions.
        active_only: whether the scheduler is asked first which of them are queued or run; those
            of an earlier command may have ended, and their numbers be those of other jobs.
        again: the command that is named where there was no answer; by default the scheduler's.

    Returns:
        Whether it was done; otherwise their numbers and that command are printed.
    """
    left = [folder for folder in folders if read_id(folder)]
    if active_only:
        left = _not_ended(left)
    if not left:
        return True
    engine = engine_of(left)
    numbers = _numbers(left)
    deadline = time.monotonic() + CANCEL_SECONDS
    try:
        if active_only:
            numbers = _patiently(lambda: _numbers(_active(left)), deadline)
        if numbers:
            print(f"cancelling {' '.join(numbers)}", file=sys.stderr)
            _patiently(lambda: engine.cancel(numbers), deadline)
    except Unreachable as error:
        again = again or shlex.join([engine.cancel_program, *numbers])
        print(
            f"error: not cancelled, as the scheduler doesn't answer ({error}); jobs that may still "
            f"be queued or running: {' '.join(numbers)}. When it answers again: {again}",
            file=sys.stderr,
        )
        return False
    return True


def _numbers(folders: Sequence[Path]) -> list[str]:
    return [read_id(folder) or "" for folder in folders]


def _patiently(ask: Callable[[], Answer], deadline: float) -> Answer:
    """The answer of a scheduler that may be silent for a while.

    Raises:
        Unreachable: it still is at the deadline, or Ctrl-C ends this.
    """
    silent = False
    try:
        while True:
            try:
                return ask()
            except Unreachable as error:
                left = deadline - time.monotonic()
                if left < 0:
                    raise
                if not silent:
                    what = f"the scheduler doesn't answer, trying for {left:.0f} s ({error})"
                    print(what, file=sys.stderr)
                silent = True
            time.sleep(CANCEL_PAUSE_SECONDS)
    except KeyboardInterrupt as error:
        raise Unreachable("interrupted") from error


def report(failures: Sequence[Failure], tasks: int, quiet: bool = False) -> int:
    """Names the failed tasks with the end of the first one's log.

    Args:
        failures: what failed.
        tasks: how many there were.
        quiet: the user has seen all that there is to say.

    Returns:
        The exit status: 1 where one of several failed, unless all did by wrong input.
    """
    if not failures:
        return 0
    one_end = tasks == 1 or {failure.status for failure in failures} == {USERS_ERROR}
    if not quiet:
        print(f"error: {len(failures)} of {tasks} failed", file=sys.stderr)
        for failure in failures[:SHOWN_FAILURES]:
            print(f"       {failure}", file=sys.stderr)
        if len(failures) > SHOWN_FAILURES:
            print(f"       and {len(failures) - SHOWN_FAILURES} more", file=sys.stderr)
        for line in last_lines(failures[0].log, SHOWN_LOG_LINES):
            print(f"       | {line}", file=sys.stderr)
    return (failures[0].status if one_end else None) or 1


def last_lines(log: Path, number: int) -> list[str]:
    """The end of a log; nothing where there is none."""
    if not log.exists():
        return []
    return log.read_text(errors="replace").splitlines()[-number:]
