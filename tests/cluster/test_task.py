"""A task whose time limit is announced: what it leaves for its next run."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from throw_away_slurm import wait_until

from espnet_prune.cluster import script
from espnet_prune.cluster.job import Job, TaskFiles, record
from espnet_prune.cluster.task import Task

WAITS_FOR_STOP = 'until [ -e "$ESPNET_PRUNE_TASK.stop" ]; do sleep 0.02; done; exit 75'
STOP_SECONDS = 600


def run(folder: Path, command: str, asked: bool) -> Task:
    """Runs a task, asked to stop or not."""
    job = Job("slurm", "x.log", ("bash", "-c", command), str(folder), stop_seconds=STOP_SECONDS)
    record(job, folder / "records")
    task = Task(folder / "records", 0)
    timer = threading.Timer(0.2, task.ask_to_stop)
    if asked:
        timer.start()
    with (folder / "x.log").open("ab") as log:
        task.run(log)
    timer.cancel()
    return task


@pytest.fixture
def files(tmp_path):
    return TaskFiles.of(tmp_path / "records", 0)


def stopped(files: TaskFiles) -> dict:
    return json.loads(files.stopped.read_text())


@pytest.mark.parametrize(
    "end, time_limit",
    [
        (lambda: time.time() + STOP_SECONDS, True),
        (lambda: time.time() + STOP_SECONDS + 3600, False),  # preempted an hour before
        (lambda: "INVALID", True),  # nobody knows, as on Grid Engine
    ],
)
def test_the_next_run_knows_why_the_last_one_was_stopped(
    files, tmp_path, monkeypatch, end, time_limit
):
    value = end()
    monkeypatch.setenv("SLURM_JOB_END_TIME", value if isinstance(value, str) else str(int(value)))
    task = run(tmp_path, WAITS_FOR_STOP, asked=True)
    assert task.ended["status"] == 75 and task.wants_another_run
    assert not files.stopped.exists()
    run(tmp_path, "test ! -e $ESPNET_PRUNE_TASK.stop; exit $?", asked=False)
    assert stopped(files)["time_limit"] is time_limit
    assert 0.1 < stopped(files)["seconds"] < 5
    run(tmp_path, "true", asked=False)
    assert not files.stopped.exists()


def test_a_training_that_gives_up_is_not_queued_again(files, tmp_path, monkeypatch):
    """It fails by itself, before anybody asks it to stop."""
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert run(tmp_path, WAITS_FOR_STOP, asked=True).wants_another_run
    failing = run(tmp_path, 'test -e "$ESPNET_PRUNE_TASK.stopped" && exit 2', asked=False)
    assert failing.ended["status"] == 2 and not failing.wants_another_run


SLOW_TO_START = """#!/bin/sh
touch begun
until [ -e go_on ]; do sleep 0.02; done
exec {} "$@"
"""


@pytest.mark.parametrize("left, heeded", [(STOP_SECONDS + 2, True), (STOP_SECONDS + 3600, False)])
def test_a_limit_that_is_announced_before_the_task_has_begun(
    files, tmp_path, monkeypatch, left, heeded
):
    """The signal comes while Python starts: it ends nothing, and the clock asks in its place."""
    python = tmp_path / "python"
    python.write_text(SLOW_TO_START.format(sys.executable))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time() + left)))
    looks = 5000 if heeded else 100
    look = f'seq {looks} | until [ -e "$ESPNET_PRUNE_TASK.stop" ] || ! read; do sleep 0.02; done'
    job = Job("slurm", "x.log", ("bash", "-c", look), str(tmp_path), stop_seconds=STOP_SECONDS)
    record(job, tmp_path / "records")
    submitted = script.write_script(job, tmp_path / "records")
    process = subprocess.Popen(["bash", submitted], process_group=0)
    assert wait_until((tmp_path / "begun").exists, 20)
    process.send_signal(signal.SIGUSR1)
    (tmp_path / "go_on").touch()
    assert process.wait(60) == 0
    assert files.stop.exists() is heeded
