"""Back-end slurm: sbatch, squeue and scancel; no accounting database is needed."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_prune.cluster import client, script
from espnet_prune.cluster.job import Job, read_id
from espnet_prune.cluster.site import Site, Words
from espnet_prune.cluster.wait import Unreachable

# Slurm's own words for what passes: its messages were lost or cut, or its second controller takes
# over (src/common/slurm_errno.c of its sources).
NO_ANSWER = re.compile(
    f"{client.PASSING}|contact slurm controller|unexpected message received|message (send|receive) "
    "failure|zero bytes were transmitted|insane message length|header lengths are longer|"
    "communication (shutdown|connection) failure|in standby mode|socket communication error",
    re.I,
)
FORGOTTEN = "Invalid job id"
BEGUN = ("RUNNING", "COMPLETING")
# States that no task comes back from, with the seconds that its files may take to be seen.
ENDS = {
    "CANCELLED": 4.0,
    "FAILED": 4.0,
    "TIMEOUT": 4.0,
    "OUT_OF_MEMORY": 4.0,
    "DEADLINE": 4.0,
    "BOOT_FAIL": 60.0,
    "NODE_FAIL": 60.0,  # usually queued again at once
    "PREEMPTED": 60.0,  # likewise
    "COMPLETED": 60.0,  # its file is on its way
    "unknown to the scheduler": 20.0,
}


class Slurm:
    """The scheduler."""

    cancel_program = "scancel"

    def __init__(self, jobs: Mapping[str, str] | None = None) -> None:
        """``jobs``: the names by number, where numbers could have gone to others' jobs."""
        self.names = dict(jobs or {})

    def submit(self, job: Job, folder: Path, site: Site, options: Mapping[str, str]) -> str:
        """Submits a job.

        Returns:
            Its number.

        Raises:
            ConfigError: sbatch refuses it; names the options that its message is about.
            EnvironmentProblem: there is no sbatch, or no controller for minutes.
        """
        translated = site.translate(options)
        command = sbatch_command(job, folder, site, options, translated)
        try:
            printed = client.submit(
                "sbatch", lambda: _ask(command), lambda: self._find(folder.name)
            )
        except subprocess.CalledProcessError as error:
            raise script.refused("sbatch", error.stderr, site, translated) from error
        return printed.split(";")[0].strip()

    def _find(self, name: str) -> str | None:
        try:
            found = _ask(["squeue", "-h", "-t", "all", "-o", "%A", f"--name={name}"]).split()
        except (Unreachable, subprocess.CalledProcessError):
            return None
        return found[0] if found else None

    def states(self, identities: Sequence[str]) -> Mapping[tuple[str, int], str]:
        """See ``wait.Engine``."""
        query = ["squeue", "-h", "-r", "-t", "all", "-j", ",".join(identities), "-o", "%i %T %j"]
        try:
            lines = _ask(query).splitlines()
        except subprocess.CalledProcessError as error:
            if FORGOTTEN in error.stderr:
                return {}
            raise Unreachable(error.stderr.strip()) from error
        result = {}
        for number, state, name in (line.split(maxsplit=2) for line in lines):
            identity, _, task = number.partition("_")
            # a controller that was lost right after a submission gives its number to another job
            if self.names.get(identity, name) == name:
                result[identity, int(task) if task.isdigit() else 0] = state
        return result

    def grace_seconds(self, state: str) -> float | None:
        """See ``wait.Engine``."""
        return ENDS.get(state)

    def runs(self, state: str) -> bool:
        """See ``wait.Engine``."""
        return state in BEGUN

    def cancel(self, identities: Sequence[str]) -> None:
        """See ``wait.Engine``."""
        try:
            _ask([self.cancel_program, *identities])
        except subprocess.CalledProcessError as error:
            if FORGOTTEN not in error.stderr:
                raise Unreachable(error.stderr.strip()) from error


def sbatch_command(
    job: Job, folder: Path, site: Site, options: Mapping[str, str], translated: Sequence[Words]
) -> list[str]:
    """The whole command line."""
    words = [*site.command, "--parsable", "--requeue", "--kill-on-invalid-dep=yes"]
    words += [word for group in translated for word in group.words]
    log = str(Path(job.directory, job.log_of("\0"))).replace("%", "%%").replace("\0", "%a")
    words += [
        "--open-mode=append",
        f"--output={log}",
        f"--error={log}",
        f"--job-name={folder.name}",
    ]
    if job.variable:
        limit = {**site.defaults, **options}.get("max_jobs_run")
        words.append(f"--array={job.first}-{job.last}" + (f"%{limit}" if limit else ""))
    if job.after:
        numbers = [read_id(Path(name)) or "" for name in job.after]
        words.append(f"--dependency=afterok:{':'.join(numbers)}")
    return [*words, str(script.write_script(job, folder))]


def _ask(command: Sequence[str]) -> str:
    return client.ask(command, NO_ANSWER)
