"""A throw-away Slurm, and how tests call the submitting program."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from throw_away_slurm import ThrowAwaySlurm, heed_interrupts, lacking, missing_programs

REPOSITORY = Path(__file__).resolve().parents[2]
SUBMIT = REPOSITORY / "utils/submit.py"


@pytest.fixture(scope="session")
def slurm() -> Iterator[ThrowAwaySlurm]:
    """A running Slurm with the nodes n1 and n2, or a skip that says what is missing."""
    missing = missing_programs()
    if missing:
        lacking(
            f"no {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge, "
            "or utils/setup_env.sh --test as root"
        )
    cluster = ThrowAwaySlurm(nodes=2)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def submit(tmp_path: Path) -> Callable:
    """Runs ``utils/submit.py`` in the test's folder to its end."""

    def call(*words: str, environment: dict[str, str] | None = None, timeout: float = 100):
        return subprocess.run(
            [sys.executable, str(SUBMIT), *words],
            cwd=tmp_path,
            env=environment or os.environ,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return call


@pytest.fixture
def on_slurm(slurm: ThrowAwaySlurm, submit: Callable) -> Callable:
    """The same by Slurm."""
    return lambda *words: submit("--backend", "slurm", *words, environment=slurm.environment)


@pytest.fixture
def begin(slurm: ThrowAwaySlurm, tmp_path: Path) -> Iterator[Callable]:
    """Starts it by Slurm and goes on; ends it after the test."""
    begun: list[subprocess.Popen] = []

    def call(*words: str) -> subprocess.Popen:
        command = [sys.executable, str(SUBMIT), "--backend", "slurm", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(
            command, cwd=tmp_path, env=slurm.environment, preexec_fn=heed_interrupts, **pipes
        )
        begun.append(process)
        return process

    yield call
    for process in begun:
        process.terminate()
        process.communicate()
