"""What the schedulers' back-ends share: the script that they run, and what a refusal means."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cluster.job import Job
from espnet_prune.cluster.site import Site, Words
from espnet_prune.errors import ConfigError
from espnet_prune.io_atomic import write_text
from espnet_prune.job_control import TASK, TOKEN

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
# What a recipe's commands read: a job has it even where the site's file hands on no environment.
HANDED_ON = ("conf_dir", "recipe_dir", "nj", "PYTHONUNBUFFERED")
PREFIX = "ESPNET_PRUNE_"


def write_script(job: Job, folder: Path) -> Path:
    """Writes the shell script that runs a task of the submission."""
    path = folder / "script.sh"
    module = ["-m", "espnet_prune.cluster.task", str(folder), job.backend]
    write_text(
        path,
        "#!/bin/bash\n"
        "trap '' USR1 USR2\n"  # by default they would end it, before the task heeds them
        f"cd {shlex.quote(job.directory)} || exit 1\n"
        f"export PYTHONPATH={shlex.quote(str(PACKAGE_ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}\n"
        + "".join(f"export {name}={shlex.quote(value)}\n" for name, value in _handed_on().items())
        + f"exec {shlex.join([sys.executable, *module])}\n",
    )
    return path


def _handed_on() -> dict[str, str]:
    """Those of the recipe's variables that are set; what a task has of its own it sets itself."""
    ours = {n for n in os.environ if n in HANDED_ON or n.startswith(PREFIX)} - {TASK, TOKEN}
    return {name: os.environ[name] for name in sorted(ours)}


def refused(program: str, message: str, site: Site, translated: Sequence[Words]) -> ConfigError:
    """The error for a submission that the scheduler doesn't take.

    Args:
        program: the scheduler's.
        message: what it said.
        site: the site's file.
        translated: the words given, with their origins.
    """
    message = " ".join(message.split())
    given = [group for group in translated if group.words]
    about = [group for group in given if any(_names(word, message) for word in group.words)]
    own = Words(site.command, f"{site.path}, line 'command'")
    lines = [f"{shlex.join(group.words)}: from {group.origin}" for group in about or [*given, own]]
    options = "".join(f"\n       {line}" for line in lines)
    return ConfigError(f"{program} refused the job: {message}\n       Its options:{options}")


def _names(word: str, message: str) -> bool:
    """Whether a message speaks of an option's word or of its value."""
    flag, _, value = word.rpartition("=")
    return any(len(part) > 1 and part in message for part in (flag, value))
