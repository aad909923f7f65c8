"""One task of a submission where it runs: its log's first and last line, its files.

A scheduler runs ``python -m espnet_prune.cluster.task FOLDER BACKEND``, back-end ``local`` calls
``Task.run``. The log gets what the command prints. When the scheduler announces the time limit
(SIGUSR1, or SIGUSR2 from Grid Engine), the command is asked to save and end by a file
(``espnet_prune.job_control``) and the task goes back into the queue.
"""

import contextlib
import math
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

from espnet_prune.cluster.job import Job, TaskFiles, read_job, statuses
from espnet_prune.io_atomic import write_json
from espnet_prune.job_control import TASK, TOKEN

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED = 128  # a shell's exit status of a command that a signal ended is this plus its number
NOT_RUN = 125
NOT_FOUND = 127  # as a shell's
KILL_SECONDS = 10  # between asking a command to end and killing it
QUEUE_AGAIN_EXIT = 99  # Grid Engine queues a task again that ends so
REQUEUE_TRIES = 30
EARLY_SECONDS = 60  # by which Slurm may announce the time limit too early


def heeded_signals() -> list[signal.Signals]:
    """Those of FORWARDED that this program wasn't started to ignore, as nohup and "&" do."""
    return [number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN]


class Task:
    """A task that is run once or, when it fails, twice."""

    def __init__(self, folder: Path, task: int) -> None:
        self.job: Job = read_job(folder)
        self.folder = folder
        self.number = task
        self.files = TaskFiles.of(folder, task)
        self.token = secrets.token_hex(8)
        self.process: subprocess.Popen | None = None
        self.began = time.monotonic()
        self.asked_at: float | None = None  # when the time limit was announced
        self.cancelled_at: float | None = None
        self.signal = 0
        self.peak_mib = 0.0
        self.ended: dict = {}

    def run(self, stream: BinaryIO, echo: bool = False) -> int:
        """Runs the command.

        Args:
            stream: the log, open for appending.
            echo: whether what the command prints goes to the standard output, too.

        Returns:
            The exit status.
        """
        command = self.job.command_of(self.number)
        self.began = time.monotonic()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        process = f"{socket.gethostname()} process {os.getpid()}"
        _say(stream, f"# {stamp} {process}: {shlex.join(command)}")
        write_json(
            self.files.started,
            {"host": socket.gethostname(), "process": os.getpid(), "token": self.token},
        )
        self.files.stopped.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.files.stop.rename(self.files.stopped)
        status = self._run(command, stream, echo)
        seconds = time.monotonic() - self.began
        peak = round(self.peak_mib)
        _say(stream, f"# ended after {seconds:.1f} s, peak memory {peak} MiB, status {status}")
        self.ended = {"status": status, "seconds": round(seconds, 1), "peak_mib": peak}
        return status

    def _run(self, command: list[str], stream: BinaryIO, echo: bool) -> int:
        environment = {
            **os.environ,
            TASK: str(self.folder / str(self.number)),
            TOKEN: self.token,
            **_threads(),
        }
        try:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE if echo else stream,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,
            )
        except OSError as error:
            text = f"error: {command[0]}: {error.strerror}"
            _say(stream, text)
            if echo:
                print(text, file=sys.stderr)
            return NOT_FOUND
        if self.cancelled_at:
            self.send(self.signal)
        if not echo:
            return self._wait(stream)
        copier = threading.Thread(target=_copy, args=(self.process.stdout, stream))
        copier.start()
        status = self._wait(stream)
        copier.join()
        return status

    def _wait(self, stream: BinaryIO) -> int:
        """Waits for the command, while signals come in."""
        pause = 0.01
        while True:
            ended, code, usage = os.wait4(self.process.pid, os.WNOHANG)
            if ended:
                break
            now = time.monotonic()
            if self.cancelled_at and now - self.cancelled_at > KILL_SECONDS:
                _signal_group(self.process, signal.SIGKILL)
            if self.asked_at and now - self.asked_at > self.patience():
                self.asked_at = math.inf
                _say(stream, "# not saved in time: what its last checkpoint lacks is done again")
                _signal_group(self.process, signal.SIGKILL)
            time.sleep(pause)
            pause = min(1.5 * pause, 0.5)
        code = os.waitstatus_to_exitcode(code)
        self.process.returncode = code
        if self.cancelled_at:  # what it started in the background may have ignored the signal
            _signal_group(self.process, signal.SIGKILL)
        self.peak_mib = usage.ru_maxrss / 1024  # KiB on Linux; of its largest process
        return STOPPED - code if code < 0 else code

    def patience(self) -> float:
        """Seconds that a training has for saving; the rest before the limit is for queueing."""
        return self.job.stop_seconds - min(30, self.job.stop_seconds / 4)

    def ask_to_stop(self, *unused) -> None:
        """Signal handler: the time limit is near, or another job needs the machine."""
        if self.job.stop_seconds and self.asked_at is None:
            seconds = round(time.monotonic() - self.began, 1)
            near = _limit_is_near(self.job.stop_seconds)
            write_json(self.files.stop, {"time_limit": near, "seconds": seconds})
            self.asked_at = time.monotonic()

    def heed_the_clock(self) -> None:
        """Asks in time also where the announcement may have come before anybody heeded it."""
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        if self.job.stop_seconds and end.isdigit() and _limit_is_near(self.job.stop_seconds):
            signal.signal(signal.SIGALRM, self.ask_to_stop)
            left = int(end) - self.job.stop_seconds - time.time()
            signal.setitimer(signal.ITIMER_REAL, max(left, 1.0))

    def cancel(self, number: int, frame) -> None:
        """Signal handler: ends the command."""
        self.cancelled_at = self.cancelled_at or time.monotonic()
        self.signal = number
        self.send(self.signal)

    def send(self, number: int) -> None:
        """Sends a signal to the command and what it started, if it runs."""
        if self.process is not None and self.process.returncode is None:
            _signal_group(self.process, number)

    @property
    def wants_another_run(self) -> bool:
        """Whether to queue it again: stopped by its time limit, or its first failure of several."""
        if not self.ended["status"] or self.cancelled_at:
            return False
        second_try = self.job.has_second_try(self.ended["status"])
        return self.asked_at is not None or (second_try and not self.files.failed.exists())

    def note_failure(self) -> None:
        """Uses up the second try, unless the time limit was to blame."""
        if self.asked_at is None:
            write_json(self.files.failed, self.ended)

    def finish(self) -> None:
        """Tells whoever waits that this was the last run."""
        if not self.cancelled_at:
            write_json(self.files.status, self.ended)


def _limit_is_near(stop_seconds: int) -> bool:
    """Whether the time limit is why a task was asked to stop; yes where that isn't known."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return not end.isdigit() or time.time() + stop_seconds + EARLY_SECONDS >= int(end)


def _threads() -> dict[str, str]:
    """As many threads as the scheduler gave processors."""
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("NSLOTS")
    return {"OMP_NUM_THREADS": given} if given else {}


def _signal_group(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _copy(source: BinaryIO, log: BinaryIO) -> None:
    """To the log and, as long as there is one, to the terminal."""
    terminal = sys.stdout.fileno()
    while text := os.read(source.fileno(), 1 << 16):
        os.write(log.fileno(), text)
        with contextlib.suppress(OSError):
            os.write(terminal, text)


def _say(stream: BinaryIO, text: str) -> None:
    os.write(stream.fileno(), f"{text}\n".encode())


def _failed_before(job: Job) -> str | None:
    """The first job that had to succeed and did not, for schedulers that don't look."""
    for folder in map(Path, job.after):
        ended = statuses(folder)
        for task in read_job(folder).tasks:
            if ended.get(task, {"status": 1})["status"]:
                return read_job(folder).log_of(task)
    return None


def queue_again(backend: str) -> bool:
    """Asks the scheduler to run this task once more; False where it refuses."""
    if backend == "sge":
        return True  # by the exit status
    identity = os.environ["SLURM_JOB_ID"]
    for _ in range(REQUEUE_TRIES):
        try:
            done = subprocess.run(
                ["scontrol", "requeue", identity], capture_output=True, text=True, timeout=30
            )
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            return True
        print(f"# scontrol requeue {identity}: {done.stderr.strip()}", flush=True)
        if "contact" not in done.stderr:
            return False
        time.sleep(2)
    return False


def main(arguments: list[str] | None = None) -> int:
    """Runs the task that the scheduler's environment names."""
    folder, backend = arguments or sys.argv[1:]
    number = os.environ.get("SLURM_ARRAY_TASK_ID" if backend == "slurm" else "SGE_TASK_ID", "0")
    task = Task(Path(folder), int(number) if number.isdigit() else 0)
    for name in FORWARDED:
        signal.signal(name, task.cancel)
    for name in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(name, task.ask_to_stop)
    task.heed_the_clock()
    culprit = _failed_before(task.job) if backend == "sge" else None
    if culprit:
        print(f"error: not run, because {culprit} failed", flush=True)
        task.ended = {"status": NOT_RUN}
        task.finish()
        return NOT_RUN
    status = task.run(sys.stdout.buffer)
    while task.wants_another_run:
        task.note_failure()
        print("# to be run once more", flush=True)
        if queue_again(backend):
            return QUEUE_AGAIN_EXIT if backend == "sge" else status
        if task.asked_at:
            break
        status = task.run(sys.stdout.buffer)
    task.finish()
    return status


if __name__ == "__main__":
    sys.exit(main())
