"""Waiting with a scheduler that a test plays, and a clock that it turns."""

import pytest

from espnet_prune.cluster import wait
from espnet_prune.cluster.job import Job, TaskFiles, record, write_id
from espnet_prune.cluster.slurm import Slurm
from espnet_prune.cluster.wait import Unreachable, wait_for
from espnet_prune.io_atomic import write_json


class Played:
    """Answers by a function of the time; states end as Slurm's do."""

    def __init__(self, answer):
        self.answer = answer
        self.now = 0.0
        self.asked = []

    def states(self, identities):
        self.asked.append(self.now)
        return self.answer(self.now)

    grace_seconds = staticmethod(Slurm().grace_seconds)

    def cancel(self, identities):
        raise AssertionError("nobody asked for this")

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def array(tmp_path):
    """A submission of two tasks, number 7."""
    job = Job("slurm", "x.JOB.log", ("true",), str(tmp_path), "JOB", 1, 2)
    record(job, tmp_path / "job")
    write_id(tmp_path / "job", "7")
    return tmp_path / "job"


@pytest.fixture
def play(array, monkeypatch):
    """Waits for the submission while ``answer`` plays the scheduler."""

    def call(answer):
        engine = Played(answer)
        monkeypatch.setattr(wait.time, "monotonic", lambda: engine.now)
        return wait_for([array], engine, engine.sleep), engine

    return call


def end(folder, task, status=0):
    write_json(TaskFiles.of(folder, task).status, {"status": status})


def test_files_decide_whatever_the_state_says(array, play):
    end(array, 1)
    end(array, 2, status=3)
    (failure,), engine = play(lambda now: {})
    assert (failure.task, failure.status) == (2, 3)
    assert not engine.asked


def test_a_cancelled_task_is_noticed_within_15_seconds_of_any_moment(array, play):
    end(array, 1)
    for moment in range(60, 80):
        state = "RUNNING", "CANCELLED"
        (failure,), engine = play(lambda now: {("7", 2): state[now > moment]})  # noqa: B023
        assert failure.task == 2 and failure.reason == "CANCELLED"
        assert engine.now - moment < 15


@pytest.mark.parametrize(
    "states", [["NODE_FAIL", "PENDING"], ["PREEMPTED", "PENDING"], ["REQUEUED"]]
)
def test_what_is_queued_again_is_waited_for(array, play, states):
    end(array, 1)

    def answer(now):
        if now > 400:
            end(array, 2)
        return {("7", 2): "RUNNING" if now < 100 else states[now > 130 and len(states) > 1]}

    failures, _ = play(answer)
    assert not failures


def test_a_silent_controller_is_waited_for(array, play, capsys):
    end(array, 1)

    def answer(now):
        if 10 < now < 700:
            raise Unreachable("unable to contact slurm controller")
        if now > 700:
            end(array, 2)
        return {("7", 2): "RUNNING"}

    failures, _ = play(answer)
    assert not failures
    assert capsys.readouterr().err.count("doesn't answer") == 1


def test_what_the_scheduler_has_forgotten_failed(array, play):
    end(array, 1)
    (failure,), engine = play(lambda now: {})
    assert failure.reason == "unknown to the scheduler" and 20 < engine.now < 30


def test_questions_become_rare(array, play):
    def answer(now):
        if now > 600:
            end(array, 1)
            end(array, 2)
        return {("7", 1): "RUNNING", ("7", 2): "PENDING"}

    _, engine = play(answer)
    gaps = [b - a for a, b in zip(engine.asked, engine.asked[1:], strict=False)]
    assert gaps[0] == 1 and 7 < max(gaps) < 8.1 and len(engine.asked) < 90
