"""A real Grid Engine on this machine for the time of some tests; root only, in its own folder.

Debian's packages are made for one cluster a machine, whose files are in /etc and /var; this one has
a cell of its own, whose master and execution daemon listen on free ports.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from throw_away_slurm import free_ports, runs, wait_until

PROGRAMS = ("sge_qmaster", "sge_execd", "qsub", "qstat", "qdel", "qconf", "qhost")
SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
SHARE = Path("/usr/share/gridengine")
READY_SECONDS = 40
SLOTS = 4
BOOTSTRAP = """\
admin_user none
default_domain none
ignore_fqdn true
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params {folder}/spool
binary_path /usr/sbin
qmaster_spool_dir {folder}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
# What differs from the defaults: quick answers, and jobs of root.
GLOBAL = {
    "execd_spool_dir": "{folder}/execd",
    "min_uid": "0",
    "min_gid": "0",
    "load_report_time": "00:00:02",
    "mailer": "/bin/true",
    "gid_range": "20000-20100",
}
SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
    "load_adjustment_decay_time": "0:0:0",
}
QUEUE = {
    "qname": "all.q",
    "hostlist": "{host}",
    "slots": str(SLOTS),
    "pe_list": "smp",
    "load_thresholds": "NONE",
    "shell": "/bin/bash",
    "rerun": "TRUE",
    "notify": "00:00:20",
}
PARALLEL = """\
pe_name smp
slots 99
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule $pe_slots
control_slaves FALSE
job_is_first_task TRUE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""


def missing() -> str | None:
    """Why there can be no Grid Engine here; None where there can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]
    if absent:
        return (
            f"no {', '.join(absent)}: apt-get install gridengine-master gridengine-exec "
            "gridengine-client, or utils/setup_env.sh --test as root"
        )
    return None if os.getuid() == 0 else "Grid Engine's daemons need root"


class ThrowAwayGridEngine:
    """sge_qmaster and sge_execd with one queue of four slots.

    Attributes:
        folder: everything that they write.
        environment: what Grid Engine's clients need to find them.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sge"))
        self.folder.chmod(0o755)
        self.host = socket.gethostname()
        port = free_ports(2)
        self.environment = {
            **os.environ,
            "PATH": SEARCH_PATH,
            "SGE_ROOT": str(self.folder),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(port),
            "SGE_EXECD_PORT": str(port + 1),
        }

    def start(self) -> None:
        """Brings all up.

        Raises:
            RuntimeError: the host reports no load in time.
        """
        common = self.folder / "default/common"
        for name in ("default/common", "spool", "qmaster/job_scripts", "execd", "edit"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "util").symlink_to(SHARE / "util")
        (common / "act_qmaster").write_text(f"{self.host}\n")
        # the loopback's first name is localhost, as which connections would be refused
        (common / "host_aliases").write_text(f"{self.host} localhost\n")
        (common / "bootstrap").write_text(BOOTSTRAP.format(folder=self.folder))
        spool = str(self.folder / "spool")
        self._run(str(SHARE / "scripts/init_cluster"), str(self.folder), "default", spool, "root")
        self._run("sge_qmaster")
        wait_until(lambda: bool(self.ask("qconf", "-sh")), 15)
        self._change("-sconf", "-Mconf", GLOBAL, "global")
        self._change("-ssconf", "-Msconf", SCHEDULER, "scheduler")
        self.ask("qconf", "-ah", self.host)
        self.ask("qconf", "-as", self.host)
        self._run("sge_execd")
        wait_until(lambda: "lx-" in self.ask("qhost", "-h", self.host), 20)
        (self.folder / "edit/smp").write_text(PARALLEL)
        self.ask("qconf", "-Ap", str(self.folder / "edit/smp"))
        self._change("-sq", "-Aq", QUEUE, "queue")
        if not wait_until(self.is_ready, READY_SECONDS):
            state = self.ask("qstat", "-f") + self.ask("qhost")
            self.stop()
            raise RuntimeError(f"Grid Engine did not come up: {state}")

    def is_ready(self) -> bool:
        """Whether the queue takes jobs: it has no letter of a state."""
        lines = [line.split() for line in self.ask("qstat", "-f", "-q", "all.q").splitlines()]
        return any(words[0].startswith("all.q@") and len(words) == 5 for words in lines if words)

    def _change(self, show: str, put: str, values: dict[str, str], name: str) -> None:
        """Edits one of Grid Engine's tables by its own client."""
        text = self.ask("qconf", show)
        for key, value in values.items():
            value = value.format(folder=self.folder, host=self.host)
            text = re.sub(rf"(?m)^{key}\s.*$", f"{key} {value}", text)
        path = self.folder / "edit" / name
        path.write_text(text)
        self.ask("qconf", put, str(path))

    def _run(self, *command: str) -> None:
        with open(self.folder / "daemons.out", "ab") as output:
            subprocess.run(
                command, env=self.environment, stdout=output, stderr=output, check=True, timeout=60
            )

    def ask(self, *command: str) -> str:
        """The output of one of Grid Engine's clients; nothing where it doesn't answer."""
        try:
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=20
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout

    def queued(self) -> str:
        """The jobs that have not ended; nothing where there are none."""
        return self.ask("qstat", "-u", "*")

    def stop(self) -> None:
        """Deletes the jobs, ends the daemons and removes the folder."""
        self.ask("qdel", "-f", "-u", "*")
        files = [*self.folder.glob("execd/*/execd.pid"), self.folder / "qmaster/qmaster.pid"]
        for path in files:
            if path.exists():
                _end(int(path.read_text()))
        shutil.rmtree(self.folder, ignore_errors=True)


def _end(process: int) -> None:
    """Ends a daemon, if it is still that daemon."""
    try:
        name = Path(f"/proc/{process}/comm").read_text()
    except OSError:
        return
    if name.startswith("sge_"):
        os.kill(process, signal.SIGTERM)
        if not wait_until(lambda: not runs(process), 8):
            os.kill(process, signal.SIGKILL)
