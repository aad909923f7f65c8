"""A task whose time limit is announced: what it leaves for its next run."""

import json
import threading
import time
from pathlib import Path

import pytest

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
