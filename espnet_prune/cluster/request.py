"""The command line of ``utils/submit.py``: Kaldi's order of options, tasks, log, command."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from espnet_prune.cluster.job import Job
from espnet_prune.cluster.site import flag
from espnet_prune.config import nearest
from espnet_prune.errors import ConfigError

USAGE = """\
usage: submit.py [OPTION VALUE]... [JOB=1:N] LOG COMMAND [ARGUMENT...]

Runs a command, or N of them with JOB replaced by 1 to N in LOG and COMMAND, and waits for the end.

  --backend local|slurm|sge   where it runs [local]
  --config FILE               the site's file [conf/slurm.conf or conf/queue.conf of the recipe,
                              whose conf/ is $conf_dir or here, or of this clone]
  --wait true|false           false: submit, print the folder of the submission and return [true]
  --after FOLDER              a submission that has to succeed first; may be given several times

Whatever else begins with -- is an option of the site's file. Those of conf/:
  --mem 4G  --time 1-00:00:00  --num-threads N  --gpu N  --max-jobs-run N
    --nodes N                   of slurm: machines, each with the memory, threads and GPUs above
  --stop-seconds N            a training: N seconds before the time limit it is asked to save and
                              end, then it is queued again; sge: less than the queue's "notify",
                              which is 60 by default

A failed one of N is run once more by itself; what fails again is named, and the exit status is 1.
On this machine status 2, which means wrong input, isn't tried again, and is the exit status where
all that failed had it.
A single command gives its own exit status. Ctrl-C and SIGTERM cancel what was submitted.
"""
BACKENDS = ("local", "slurm", "sge")
SITE_FILES = {"slurm": "slurm.conf", "sge": "queue.conf"}
SITE_OPTIONS = ("mem", "time", "num_threads", "gpu", "max_jobs_run", "stop_seconds")
TASKS = re.compile(r"([A-Za-z_]\w*)=(\d+)(?::(\d+))?")
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Request:
    """A read command line.

    Attributes:
        job: what to run.
        options: the site's options as given, by key.
        config: the site's file.
        wait: whether to wait for the end.
    """

    job: Job
    options: dict[str, str]
    config: Path
    wait: bool


@dataclass
class _Own:
    """The options that are not the site's."""

    backend: str = "local"
    config: str = ""
    wait: str = "true"
    after: list[str] = field(default_factory=list)


def parse(arguments: Sequence[str]) -> Request:
    """Reads a command line.

    Raises:
        ConfigError: something is missing, unknown or no number; says which.
    """
    words = list(arguments)
    own, options = _Own(), {}
    while words and words[0].startswith("--"):
        key = words.pop(0)[2:].replace("-", "_")
        key, equals, value = key.partition("=")
        if equals:  # of the word as it was given: the value keeps its dashes
            value = arguments[len(arguments) - len(words) - 1].partition("=")[2]
        elif not words:
            raise ConfigError(f"{flag(key)} needs a value")
        else:
            value = words.pop(0)
        if key == "after":
            own.after.append(value)
        elif hasattr(own, key):
            setattr(own, key, value)
        else:
            options[key] = value
    _check(own, options)
    variable, first, last = _tasks(words)
    if len(words) < 2:
        raise ConfigError(
            "expected LOG COMMAND after the options; submit.py --help shows the order"
        )
    if first and variable not in words[0]:
        raise ConfigError(f"{words[0]}: the log of several tasks needs {variable} in its name")
    job = Job(
        backend=own.backend,
        log=words[0],
        command=tuple(words[1:]),
        directory=os.getcwd(),
        variable=variable,
        first=first,
        last=last,
        stop_seconds=int(options.get("stop_seconds", 0)),
        after=tuple(str(Path(folder).resolve()) for folder in own.after),
    )
    config = Path(own.config) if own.config else _site_file(own.backend)
    return Request(job, options, config, own.wait == "true")


def _site_file(backend: str) -> Path:
    """The recipe's own file, by what prune.sh exports or in the folder here, or this clone's."""
    name = SITE_FILES.get(backend, "")
    here = Path.cwd() / "conf"
    own = (Path(os.environ.get("conf_dir") or here, name), here / name)
    return next((path for path in own if path.is_file()), REPOSITORY / "conf" / name)


def _check(own: _Own, options: dict[str, str]) -> None:
    if own.backend not in BACKENDS:
        near = nearest(own.backend, BACKENDS)
        raise ConfigError(f"--backend: '{own.backend}' is none of {', '.join(BACKENDS)}{near}")
    if own.wait not in ("true", "false"):
        raise ConfigError(f"--wait: '{own.wait}' is not true or false")
    if own.backend == "local":
        for key in options:
            if key not in SITE_OPTIONS:
                known = [*SITE_OPTIONS, *vars(own)]
                raise ConfigError(f"unknown option {flag(key)}{nearest(key, known)}")
        if own.wait == "false" or own.after:
            raise ConfigError("--wait false and --after need --backend slurm or sge")
    for key in ("max_jobs_run", "stop_seconds"):
        if key in options and not re.fullmatch(r"\d{1,9}", options[key]):
            raise ConfigError(f"{flag(key)}: '{options[key]}' is not a whole number")


def _tasks(words: list[str]) -> tuple[str, int, int]:
    """Takes ``JOB=1:N`` off the words; an empty name and zeros where there is none."""
    match = TASKS.fullmatch(words[0]) if words else None
    if match is None:
        return "", 0, 0
    text = words.pop(0)
    first, last = int(match[2]), int(match[3] or match[2])
    if not 1 <= first <= last:
        raise ConfigError(f"{text}: expected NAME=FIRST:LAST with 1 <= FIRST <= LAST")
    return match[1], first, last
