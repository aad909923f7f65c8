"""A submission and the files of its tasks: started, asked to stop, failed once, ended."""

import dataclasses
import json
import os
import secrets
import time
from pathlib import Path

from espnet_prune.errors import USERS_ERROR
from espnet_prune.io_atomic import read_json, write_json, write_text

RECORD = "job.json"
ENGINE_ID = "id"
RECORDS = ".jobs"


@dataclasses.dataclass(frozen=True)
class Job:
    """What is submitted at once.

    Attributes:
        backend: local, slurm or sge.
        log: the log's path, with ``variable`` in it where there are several tasks.
        command: likewise.
        directory: where the command runs.
        variable: stands for the task's number in log and command; empty for one command.
        first: number of the first task; 0 for one command.
        last: number of the last.
        stop_seconds: how long before the time limit a training is asked to stop; 0 for never.
        after: folders of the jobs that have to succeed first.
    """

    backend: str
    log: str
    command: tuple[str, ...]
    directory: str
    variable: str = ""
    first: int = 0
    last: int = 0
    stop_seconds: int = 0
    after: tuple[str, ...] = ()

    @property
    def tasks(self) -> range:
        """The tasks' numbers."""
        return range(self.first, self.last + 1)

    def has_second_try(self, status: int) -> bool:
        """Whether a task of several that failed so is run once more; here not for its input."""
        return self.last > 0 and not (self.backend == "local" and status == USERS_ERROR)

    def log_of(self, task: int | str) -> str:
        """Path of a task's log; a scheduler's placeholder gives its pattern."""
        return self.log.replace(self.variable, str(task)) if self.variable else self.log

    def command_of(self, task: int) -> list[str]:
        """Words of a task's command."""
        if not self.variable:
            return list(self.command)
        return [word.replace(self.variable, str(task)) for word in self.command]


def new_folder(job: Job) -> Path:
    """A name, absolute and new, for the records of a submission: beside its log."""
    log = Path(job.directory, job.log_of(job.first))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return log.parent / RECORDS / f"{log.stem}-{stamp}-{secrets.token_hex(3)}"


def record(job: Job, folder: Path) -> None:
    """Makes the folders of the logs, and writes the submission into its own."""
    for task in job.tasks:
        Path(job.directory, job.log_of(task)).parent.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, {"schema": 1, **dataclasses.asdict(job)})


def read_job(folder: Path) -> Job:
    """The submission that a folder was made for.

    Raises:
        DataError: there is none.
    """
    values = read_json(folder / RECORD)
    values.pop("schema")
    lists = {key: tuple(values[key]) for key in ("command", "after")}
    return Job(**{**values, **lists})


def write_id(folder: Path, identity: str) -> None:
    """Keeps the scheduler's number of the job."""
    write_text(folder / ENGINE_ID, identity + "\n")


def read_id(folder: Path) -> str | None:
    """The scheduler's number of the job; None where it was never submitted."""
    path = folder / ENGINE_ID
    return path.read_text().strip() if path.exists() else None


def statuses(folder: Path) -> dict[int, dict]:
    """How tasks ended, by number; those that have not are missing."""
    names = [name for name in os.listdir(folder) if name.endswith(".status")]
    return {int(name.partition(".")[0]): json.loads((folder / name).read_text()) for name in names}


def folders_below(folder: Path) -> list[Path]:
    """Folders of the submissions whose logs are in ``folder``, by the logs' names."""
    return sorted(path.parent for path in (folder / RECORDS).glob(f"*/{RECORD}"))


@dataclasses.dataclass(frozen=True)
class TaskFiles:
    """The files of one task of a submission.

    Attributes:
        started: JSON: host, process, time, token of the copy that runs.
        stop: there when the command has been asked to save and end; JSON: whether the time limit
            was the reason, and how many seconds it had run.
        stopped: the same, of the run before.
        failed: the first failure of a task that gets a second try.
        status: JSON: how the task ended for good.
    """

    started: Path
    stop: Path
    stopped: Path
    failed: Path
    status: Path

    @classmethod
    def of(cls, folder: Path, task: int) -> "TaskFiles":
        """Those of a task."""
        kinds = ("started", "stop", "stopped", "failed", "status")
        return cls(*(folder / f"{task}.{kind}" for kind in kinds))
