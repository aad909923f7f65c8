"""Cancelling while the scheduler is silent: its programs are played."""

import os
import subprocess
from pathlib import Path

import pytest

from espnet_prune.cli import main
from espnet_prune.cluster import submit
from espnet_prune.cluster.job import Job, TaskFiles, record, write_id
from espnet_prune.io_atomic import write_json

# Silent as long as there are lines in the file "silent", of which each call takes one.
PROGRAM = """#!/bin/sh
cd {folder}
if [ -s silent ]; then
    sed -i 1d silent
    echo "{name}: error: Unable to contact slurm controller (connect failure)" >&2
    exit 1
fi
{does}
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's programs; their folder, where the cancelled jobs are listed."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    does = {"squeue": "echo 7 PENDING a; echo 8 RUNNING b", "scancel": 'echo "$@" >> cancelled'}
    for name, what in does.items():
        (folder / name).write_text(PROGRAM.format(folder=folder, name=name, does=what))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(submit, "CANCEL_PAUSE_SECONDS", 0.01)
    return folder


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """With two jobs, and a third that the scheduler has forgotten."""
    for name, number in (("a", "7"), ("b", "8"), ("c", "9")):
        folder = tmp_path / f"exp/log/.jobs/{name}"
        record(Job("slurm", f"{name}.log", ("true",), str(tmp_path)), folder)
        write_id(folder, number)
    return tmp_path / "exp"


def silence(slurm: Path, calls: int) -> None:
    (slurm / "silent").write_text("call\n" * calls)


@pytest.mark.parametrize("calls", [0, 3])
def test_a_scheduler_silent_for_a_while_is_asked_again(slurm, experiment, capsys, calls):
    silence(slurm, calls)
    assert main(["jobs", "cancel", str(experiment)]) == 0
    assert (slurm / "cancelled").read_text() == "7 8\n"
    error = capsys.readouterr().err
    assert "cancelling 7 8" in error
    assert error.count("the scheduler doesn't answer, trying for 200 s") == (calls > 0)


def test_what_may_still_be_queued_is_named_with_the_command(slurm, experiment, capsys, monkeypatch):
    monkeypatch.setattr(submit, "CANCEL_SECONDS", 0.1)
    write_json(TaskFiles.of(experiment / "log/.jobs/b", 0).status, {"status": 0})
    silence(slurm, 1000)
    assert main(["jobs", "cancel", str(experiment)]) == 1
    error = capsys.readouterr().err
    assert "still be queued or running: 7 9. When it answers again: " in error
    assert f"espnet-prune jobs cancel {experiment}\n" in error
    assert not (slurm / "cancelled").exists()


def test_without_an_experiment_the_command_is_the_scheduler_s(
    slurm, experiment, capsys, monkeypatch
):
    monkeypatch.setattr(submit, "CANCEL_SECONDS", 0.1)
    silence(slurm, 1000)
    assert not submit.cancel([experiment / "log/.jobs/a", experiment / "log/.jobs/c"])
    assert "When it answers again: scancel 7 9\n" in capsys.readouterr().err


def test_ctrl_c_gives_up_with_the_same_words(slurm, experiment, capsys, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    silence(slurm, 1000)
    monkeypatch.setattr(submit.time, "sleep", interrupted)
    assert main(["jobs", "cancel", str(experiment)]) == 1
    assert "(interrupted); jobs that may still be queued" in capsys.readouterr().err


def test_a_driver_that_could_not_cancel_keeps_its_exit_status(repository):
    driver = (
        "set -euo pipefail; nj=1; cmd_backend=slurm exp=exp/x; . utils/run_stages.sh; "
        "python() { return 1; }; submitting=true; trap end_submission EXIT; exit 130"
    )
    assert subprocess.run(["bash", "-c", driver], cwd=repository).returncode == 130
