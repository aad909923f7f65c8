"""The lock of a training's folder, between processes."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from espnet_prune import job_control
from espnet_prune.errors import TrainingError
from espnet_prune.job_control import LOCK, TASK, only_writer

# Holds a folder until its standard input ends; a process that it forks outlives it.
HOLDER = """
import os, sys, time
from pathlib import Path
from espnet_prune.job_control import only_writer

with only_writer(Path(sys.argv[1])):
    if sys.argv[2:] and not os.fork():
        time.sleep(float(sys.argv[2]))
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path, repository):
    """Starts a process that holds the folder, and returns it when it does."""
    begun = []

    def call(*arguments: str, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path / "train"), *arguments],
            cwd=repository,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        begun.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield call
    for process in begun:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


@pytest.fixture
def at_once(monkeypatch):
    """Nobody waits for a holder's end."""
    monkeypatch.setattr(job_control, "LOCK_SECONDS", 0.0)


def is_free(folder: Path) -> bool:
    try:
        with only_writer(folder):
            return True
    except TrainingError:
        return False


def test_a_second_training_of_a_folder_is_refused_and_told_by_whom(hold, at_once, tmp_path):
    process = hold()
    with pytest.raises(TrainingError) as caught, only_writer(tmp_path / "train"):
        raise AssertionError("two trainings at once")
    name = f"{tmp_path}/train: process {process.pid} on {socket.gethostname()} trains here"
    assert str(caught.value).startswith(name)
    for part in ("wait for its end, or stop it", f"remove {tmp_path}/train/{LOCK}"):
        assert part in str(caught.value)
    assert is_free(tmp_path / "other")
    process.communicate()
    assert is_free(tmp_path / "train")


def test_a_killed_training_keeps_nobody_out_though_what_it_forked_lives_on(hold, at_once, tmp_path):
    process = hold("5")
    assert not is_free(tmp_path / "train")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert is_free(tmp_path / "train")


def test_a_training_that_is_ending_is_waited_for(hold, monkeypatch, tmp_path):
    monkeypatch.setattr(job_control, "LOCK_PAUSE_SECONDS", 0.01)
    process = hold()
    monkeypatch.setattr(time, "sleep", lambda seconds: process.communicate())
    assert is_free(tmp_path / "train")


def test_an_older_copy_of_this_job_does_not_keep_it_out(hold, at_once, monkeypatch, tmp_path):
    """As when its machine lost the network, and the job was queued again elsewhere."""
    hold(**{TASK: "/jobs/x/3"})
    assert not is_free(tmp_path / "train")
    monkeypatch.setenv(TASK, "/jobs/y/3")
    assert not is_free(tmp_path / "train")
    monkeypatch.setenv(TASK, "/jobs/x/3")
    assert is_free(tmp_path / "train")


def test_a_file_system_without_locks_forbids_nothing(monkeypatch, tmp_path):
    def no_locks(*unused):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(job_control.fcntl, "lockf", no_locks)
    with only_writer(tmp_path / "train"):
        assert is_free(tmp_path / "train")
