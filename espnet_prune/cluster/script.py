"""What the schedulers' back-ends share: the script that they run, and what a refusal means."""

import os
import re
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
WAIT_OR_FEWER = (
    "waiting until your other jobs have ended, or a lower --nj: every job of an array counts"
)
LIMITS = "`sacctmgr show assoc user=$USER` and `sacctmgr show qos` list the limits"
# What Slurm or Grid Engine say, and what is to be done about it; the first that matches.
REMEDIES = (
    (
        "invalid job array specification|tasks are allowed per job|max_aj_tasks",
        "an array of fewer jobs, by a lower --nj; `scontrol show config | grep MaxArraySize` "
        "(Grid Engine: `qconf -sconf | grep max_aj_tasks`) says how many may be",
    ),
    (
        "MaxSubmit|jobs (are )?allowed per user|max_u_jobs|max_jobs|job rate limit",
        f"{WAIT_OR_FEWER}; {LIMITS}",
    ),
    (
        "MaxWall|requested time limit",
        "a shorter --time: trainings that end early are queued again and go on",
    ),
    (
        "(Max|Min|Grp)(Cpu|Mem|TRES|Node|Gres)",
        f"less of --mem, --num-threads or --gpu; {LIMITS}",
    ),
    (
        "QOS policy",
        f"{WAIT_OR_FEWER}; or less of --time, --mem, --num-threads or --gpu; {LIMITS}",
    ),
    (
        "node (count|configuration)|memory (specification|required)|cpu count|gres|no suitable",
        "less of --mem, --num-threads or --gpu: no machine of the partition has so much; `sinfo -N "
        "-o '%N %c %m %G'` (Grid Engine: `qhost`) says what they have",
    ),
    (
        "partition|qos|account|unknown resource|parallel environment",
        "the partition, account and QOS of your site, in conf/slurm.conf (Grid Engine: its "
        "resources, in conf/queue.conf), as its administrators name them",
    ),
    (
        "dependency",
        "the recipe's command again: a job that this one would wait for is forgotten",
    ),
)


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
    remedy = next((r for pattern, r in REMEDIES if re.search(pattern, message, re.I)), "")
    return ConfigError(
        f"{program} refused the job: {message}\n       Its options:{options}"
        + (f"\n       What helps: {remedy}" if remedy else "")
    )


def _names(word: str, message: str) -> bool:
    """Whether a message speaks of an option's word or of its value."""
    flag, _, value = word.rpartition("=")
    return any(len(part) > 1 and part in message for part in (flag, value))
