"""Back-end sge: qsub, qstat and qdel of Grid Engine."""

import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_prune.cluster import client, script
from espnet_prune.cluster.job import Job, read_id
from espnet_prune.cluster.site import Site
from espnet_prune.cluster.wait import GONE, Unreachable

NO_ANSWER = re.compile(
    f"{client.PASSING}|unable to (contact|send message)|can't (connect|unpack)|got no|commlib",
    re.I,
)
# A script would be started by a login shell, whose profile may print into the log, or hang.
NO_LOGIN_SHELL = ("-b", "y", "-shell", "n")
# A state is made of letters, such as hqw (held, queued, waiting) or Rr (run again, running).
ERROR_STATE = "E"  # the queue could not start it
BEGUN = frozenset("rtsST")  # running, on its way to its machine, suspended by a user, queue or load


class GridEngine:
    """The scheduler."""

    cancel_program = "qdel"

    def submit(self, job: Job, folder: Path, site: Site, options: Mapping[str, str]) -> str:
        """Submits a job; it holds until the ones before it end, and then looks how they ended.

        Returns:
            Its number.

        Raises:
            ConfigError: qsub refuses it; names the options that its message is about.
            EnvironmentProblem: there is no qsub, or no master.
        """
        translated = site.translate(options)
        words = [*site.command, "-terse", "-r", "y", "-j", "y", *NO_LOGIN_SHELL]
        words += [word for group in translated for word in group.words]
        log = str(Path(job.directory, job.log_of("$TASK_ID")))
        words += ["-o", log, "-N", f"j{folder.name}"]  # a name must not begin with a digit
        if job.variable:
            words += ["-t", f"{job.first}-{job.last}"]
        if job.after:
            numbers = [read_id(Path(name)) or "" for name in job.after]
            words += ["-hold_jid", ",".join(numbers)]
        words += ["/bin/bash", str(script.write_script(job, folder))]
        try:
            output = client.submit("qsub", lambda: _ask(words), lambda: _find(f"j{folder.name}"))
        except subprocess.CalledProcessError as error:
            raise script.refused("qsub", error.stderr + error.stdout, site, translated) from error
        return re.split(r"[.\s]", output.strip().splitlines()[-1])[0]

    def states(self, identities: Sequence[str]) -> Mapping[tuple[str, int], str]:
        """See ``wait.Engine``; what has ended is missing."""
        try:
            text = _ask(["qstat", "-u", "*", "-g", "d", "-xml"])
            rows = ElementTree.fromstring(text).iter("job_list")
        except (subprocess.CalledProcessError, ElementTree.ParseError) as error:
            raise Unreachable(str(error)) from error
        result = {}
        for row in rows:
            identity = row.findtext("JB_job_number", "")
            if identity in identities:
                task = row.findtext("tasks") or "0"
                state = row.findtext("state", "")
                result[identity, int(task)] = state
        return result

    def grace_seconds(self, state: str) -> float | None:
        """See ``wait.Engine``."""
        if state == GONE:
            return 4.0
        return 0.0 if ERROR_STATE in state else None

    def runs(self, state: str) -> bool:
        """See ``wait.Engine``."""
        return not BEGUN.isdisjoint(state)

    def cancel(self, identities: Sequence[str]) -> None:
        """See ``wait.Engine``."""
        try:
            _ask([self.cancel_program, *identities])
        except subprocess.CalledProcessError as error:
            if "does not exist" not in error.stdout + error.stderr:
                raise Unreachable(error.stderr.strip()) from error


def _find(name: str) -> str | None:
    """The number of a job by its name, where it is queued or runs."""
    try:
        rows = ElementTree.fromstring(_ask(["qstat", "-u", "*", "-xml"])).iter("job_list")
    except (Unreachable, subprocess.CalledProcessError, ElementTree.ParseError):
        return None
    found = [row.findtext("JB_job_number") for row in rows if row.findtext("JB_name") == name]
    return found[0] if found else None


def _ask(command: Sequence[str]) -> str:
    return client.ask(command, NO_ANSWER)
