"""A real Slurm on this machine for the time of some tests: its daemons, its keys, its own folder.

Every node is a slurmd of its own on a port of the loopback. Nothing outside the folder is written,
no service of the system is used, and only processes that were started here are ended.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NEEDED = "ESPNET_PRUNE_TESTS_NEED_SCHEDULERS"  # .ci/run sets it: no skips for want of one
READY_SECONDS = 40
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job is held back
AuthInfo=socket={folder}/munge.socket,cred_expire=8
KillWait=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
PlugStackConfig={folder}/plugstack.conf
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
CompleteWait=0
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout=9
MessageTimeout=10
TCPTimeout=2
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=2
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE State=UP
PartitionName=main PriorityTier=10 Default=YES
PartitionName=low PriorityTier=1 GraceTime=5
"""


def missing_programs() -> list[str]:
    """Those of Slurm's programs that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]


def lacking(reason: str) -> NoReturn:
    """Skips a test that has no scheduler, or fails it where one must be there."""
    if os.environ.get(NEEDED):
        pytest.fail(f"{reason} ({NEEDED} is set)")
    pytest.skip(reason)


class ThrowAwaySlurm:
    """munged, slurmctld and some slurmd.

    Attributes:
        folder: everything that they write, with a short name because of the sockets in it.
        environment: what Slurm's clients need to find them.
    """

    def __init__(self, nodes: int = 2) -> None:
        self.nodes = nodes
        self.folder = Path(tempfile.mkdtemp(prefix="slurm"))
        self.folder.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": SEARCH_PATH,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
        }

    def start(self) -> None:
        """Brings all up.

        Raises:
            RuntimeError: the nodes are not idle in time; with the ends of the daemons' logs.
        """
        for name in ("state", *(f"spool-n{n}" for n in range(1, self.nodes + 1))):
            (self.folder / name).mkdir()
        (self.folder / "plugstack.conf").touch()
        # slurmd loads a plugin for control groups in any case; this one does nothing unless used
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self._start_munge()
        port = free_ports(self.nodes + 1)
        text = CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            user=getpass.getuser(),
            folder=self.folder,
            nodes=self.nodes,
            port=port,
            first=port + 1,
            last=port + self.nodes,
        )
        (self.folder / "slurm.conf").write_text(text)
        self.start_controller()
        for number in range(1, self.nodes + 1):
            self.start_node(number)
        if not wait_until(self.is_idle, READY_SECONDS):
            logs = {p.name: p.read_text()[-1500:] for p in self.folder.glob("*.log")}
            self.stop()
            raise RuntimeError(f"Slurm did not come up: {logs}")

    def is_idle(self) -> bool:
        """Whether every node is up and has nothing to do."""
        lines = self.ask("sinfo", "-h", "-N", "-p", "main", "-t", "idle")
        return lines.count("\n") == self.nodes

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        files = {"socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munge.seed"}
        files |= {"key-file": key.name, "log-file": "munged.log"}
        self._run("munged", *(f"--{name}={self.folder / file}" for name, file in files.items()))

    def _run(self, *command: str) -> None:
        """Starts a daemon; what it prints must not be a pipe, which it would keep open."""
        with open(self.folder / f"{command[0]}.out", "ab") as output:
            subprocess.run(
                command, env=self.environment, stdout=output, stderr=output, check=True, timeout=60
            )

    def start_controller(self) -> None:
        """Starts slurmctld, with the jobs that it knew."""
        self._run("slurmctld")

    def stop_controller(self) -> None:
        """Ends slurmctld; jobs go on."""
        _end(self.folder / "slurmctld.pid", signal.SIGTERM)

    def start_node(self, number: int) -> None:
        """Starts a node's slurmd."""
        self._run("slurmd", "-N", f"n{number}")

    def power_off(self, number: int) -> None:
        """Kills a node's daemon, its step daemons and then their jobs, as a lost machine would."""
        _end(self.folder / f"slurmd-n{number}.pid", signal.SIGKILL)
        marks = {f"SLURM_CONF={self.folder}/slurm.conf", f"SLURMD_NODENAME=n{number}"}
        jobs, steps = set(), set()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "environ").read_text(errors="replace").split("\0")
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
                is_step = Path(f"/proc/{parent}/comm").read_text().startswith("slurmstepd")
            except OSError:  # it has just ended, or is not ours to look at
                continue
            if marks <= set(words):
                jobs.add(int(path.name))
                if is_step:
                    steps.add(int(parent))
        for process in [*steps, *(jobs - steps)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def ask(self, *command: str) -> str:
        """The output of one of Slurm's clients; nothing where it fails."""
        try:
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=20
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout

    def queued(self) -> list[str]:
        """The jobs that have not ended: ``ID STATE`` each."""
        return self.ask("squeue", "-h", "-r", "-o", "%i %T").splitlines()

    def stop(self) -> None:
        """Cancels the jobs, ends the daemons and removes the folder."""
        self.ask("scancel", "-u", getpass.getuser())
        wait_until(lambda: not self.queued(), 10)
        for path in sorted(self.folder.glob("*.pid")):
            _end(path, signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)


def _end(path: Path, number: int) -> None:
    """Ends the daemon of a file with a process's number, if it is still that daemon."""
    try:
        process = int(path.read_text())
        name = Path(f"/proc/{process}/comm").read_text()
    except (OSError, ValueError):
        return
    if not name.startswith(("slurm", "munged")):
        return
    os.kill(process, number)
    if not wait_until(lambda: not runs(process), 5):
        os.kill(process, signal.SIGKILL)
    path.unlink(missing_ok=True)


def runs(process: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def free_ports(number: int) -> int:
    """The first of so many free ports in a row."""
    for first in range(20000 + os.getpid() % 8000, 32000, number):
        sockets = [socket.socket() for _ in range(number)]
        try:
            for offset, listener in enumerate(sockets):
                listener.bind(("", first + offset))
            return first
        except OSError:
            continue
        finally:
            for listener in sockets:
                listener.close()
    raise RuntimeError("no free ports in a row")


def heed_interrupts() -> None:
    """In a child, before its program: as on a terminal, also where the tests run behind "&"."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(pause)
    return bool(true)
