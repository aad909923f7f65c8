"""What ran, runs or failed in an experiment: from logs, the jobs' files and the stages' marks."""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_prune.cluster.job import Job, folders_below, read_id, read_job, statuses
from espnet_prune.cluster.submit import engine_of, last_lines, unfinished
from espnet_prune.cluster.wait import Unreachable
from espnet_prune.errors import DataError, EnvironmentProblem
from espnet_prune.io_atomic import read_json
from espnet_prune.record import BEGUN, MARK

HEADER = re.compile(r"# (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (\S+) process (\d+): ")
FOOTER = re.compile(r"# ended after ([\d.]+) s, peak memory (\d+) MiB, status (\d+)")
DONE, RUNNING, FAILED, ENDED, QUEUED = "done", "running", "FAILED", "ENDED EARLY", "queued"
UNKNOWN = "unknown"
FORGOTTEN = "forgotten by the scheduler"
SHOWN_LINES = 5
BAD = (FAILED, ENDED)


@dataclass(frozen=True)
class CommandState:
    """The last command of a log.

    Attributes:
        log: its file.
        state: done, running, queued, FAILED, or ENDED EARLY where nothing says how it ended.
        detail: when, where, how long.
    """

    log: Path
    state: str
    detail: str


def read_log(path: Path) -> CommandState:
    """The state of a log's last command, as far as the log and this machine tell."""
    started = ended = None
    with path.open(errors="replace") as file:
        for line in file:
            if found := HEADER.match(line):
                started, ended = found, None
            elif found := FOOTER.match(line):
                ended = found
    if started is None:
        return CommandState(path, UNKNOWN, "no line of it says when a command began")
    when, host, process = started.groups()
    detail = f"{when} on {host}"
    if ended is not None:
        seconds, peak, status = ended.groups()
        if status == "0":
            return CommandState(path, DONE, f"{detail}, {seconds} s, {peak} MiB")
        return CommandState(path, FAILED, f"{detail}, exit status {status} after {seconds} s")
    here = host == socket.gethostname()
    if here and not _runs(process):
        return CommandState(path, ENDED, f"{detail}: nothing says how, so it was killed")
    return CommandState(path, RUNNING, f"since {detail}" + ("" if here else ", as its log says"))


def _runs(process: str) -> bool:
    """Whether that process is there and still the one that wrote the log's line."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return False
    return "submit.py" in words or "espnet_prune.cluster.task" in words


def command_states(logs: Path) -> list[CommandState]:
    """The last command of every log in a folder, those only queued included."""
    states = {}
    for path in sorted(logs.glob("*.log")):
        states[path.resolve()] = read_log(path)
    for path, (state, detail) in _of_jobs(folders_below(logs)).items():
        states[path] = CommandState(path, state, detail)
    return [states[path] for path in sorted(states)]


def _of_jobs(folders: Sequence[Path]) -> dict[Path, tuple[str, str]]:
    """What the scheduler knows better than a log: queued, or gone without a word."""
    result: dict[Path, tuple[str, str]] = {}
    if not folders:
        return result
    try:
        active = set(unfinished(folders))
        engine = engine_of(folders)
        known = engine.states([read_id(folder) or "" for folder in folders])
    except (Unreachable, EnvironmentProblem):
        return result  # the logs have to do
    for folder in folders:
        job, ended, number = read_job(folder), statuses(folder), read_id(folder) or ""
        for task in job.tasks:
            if task in ended:
                continue
            state = known.get((number, task))
            where = f"job {number}{f'_{task}' if job.variable else ''}: {state or FORGOTTEN}"
            if folder not in active:
                result[_log(job, task)] = (FAILED, where)
            elif state is None or not engine.runs(state):
                result[_log(job, task)] = (QUEUED, where)
            else:
                result[_log(job, task)] = (RUNNING, where)
    return result


def _log(job: Job, task: int) -> Path:
    return Path(job.directory, job.log_of(task)).resolve()


def folder_states(experiment: Path) -> list[tuple[str, str]]:
    """Name and state of every folder that a stage makes."""
    found = sorted({path.parent for mark in (MARK, BEGUN) for path in experiment.rglob(mark)})
    result = []
    for folder in found:
        name = str(folder.relative_to(experiment))
        if (folder / MARK).exists():
            result.append((name, DONE))
        elif not (folder.parent / MARK).exists():  # what a finished product was made by is done
            result.append((name, f"begun{_epochs(folder)}"))
    return result


def _epochs(folder: Path) -> str:
    """How far a training is."""
    if not (folder / "train_seconds.json").exists():
        return ""
    last = max(map(int, read_json(folder / "train_seconds.json")["epochs"]), default=0)
    wanted = read_json(folder / BEGUN)["config"].get("max_epoch")
    return f", epoch {last} of {wanted} saved"


def check_experiment(experiment: Path) -> None:
    """DataError where there is no such experiment."""
    if not experiment.is_dir():
        raise DataError(f"{experiment}: no such folder; give the experiment's, such as exp/base")


def describe(experiment: Path) -> str:
    """The whole as text.

    Raises:
        DataError: there is no such experiment.
    """
    check_experiment(experiment)
    commands = command_states(experiment / "log")
    width = max((len(command.log.name) for command in commands), default=0)
    lines = ["Commands, by their logs:"]
    for command in commands:
        lines.append(f"  {command.log.name:{width}}  {command.state:11}  {command.detail}")
        if command.state in BAD:
            shown = last_lines(command.log, SHOWN_LINES)
            lines += [f"      | {line}" for line in shown]
    folders = folder_states(experiment)
    width = max((len(name) for name, _ in folders), default=0)
    lines.append("Products:")
    lines += [f"  {name:{width}}  {state}" for name, state in folders]
    counts = {
        s: sum(c.state == s for c in commands) for s in (DONE, RUNNING, QUEUED, *BAD, UNKNOWN)
    }
    lines.append(", ".join(f"{number} {state}" for state, number in counts.items() if number))
    return "\n".join(lines)
