"""Jobs of one shell command on a real Grid Engine: the basics."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from throw_away_grid_engine import ThrowAwayGridEngine, missing
from throw_away_slurm import lacking, wait_until

SUBMIT = Path(__file__).resolve().parents[2] / "utils/submit.py"
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def engine():
    """A running Grid Engine, or a skip that says what is missing."""
    reason = missing()
    if reason:
        lacking(reason)
    cluster = ThrowAwayGridEngine()
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def on_engine(engine, submit):
    """Runs the submitting program to its end."""
    return lambda *words: submit("--backend", "sge", *words, environment=engine.environment)


@pytest.fixture
def begin(engine, tmp_path):
    """Starts it and goes on; ends it after the test."""
    begun = []

    def call(*words):
        command = [sys.executable, str(SUBMIT), "--backend", "sge", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen(command, cwd=tmp_path, env=engine.environment, **pipes))
        return begun[-1]

    yield call
    for process in begun:
        process.terminate()
        process.communicate()


def log_of(folder, name="x"):
    path = folder / f"log/{name}.log"
    return path.read_text() if path.exists() else ""


def test_a_job_s_log_and_status(on_engine, tmp_path):
    done = on_engine(
        "--num-threads", "2", "log/x.log", "bash", "-c", "echo =$OMP_NUM_THREADS=; exit 7"
    )
    assert done.returncode == 7, done.stderr
    lines = log_of(tmp_path).splitlines()
    assert lines[0].startswith("# 20") and lines[1] == "=2=" and lines[2].endswith("status 7")


def test_a_failed_task_of_an_array_is_run_once_more_and_named(on_engine, tmp_path):
    command = "[ JOB = 3 ] && exit 4; [ JOB = 2 ] && [ ! -e again ] && touch again && exit 1; true"
    done = on_engine("--max-jobs-run", "2", "JOB=1:3", "log/x.JOB.log", "bash", "-c", command)
    assert done.returncode == 1
    assert "1 of 3 failed" in done.stderr
    assert "task 3: exit status 4, also when it was run once more" in done.stderr
    assert [log_of(tmp_path, f"x.{n}").count("# ended") for n in (1, 2, 3)] == [1, 2, 2]


def test_a_job_waits_for_another_and_does_not_run_when_that_fails(on_engine, tmp_path):
    first = on_engine("--wait", "false", "log/a.log", "bash", "-c", "sleep 2; touch made; exit 3")
    second = on_engine("--after", first.stdout.strip(), "log/b.log", "touch", "ran")
    assert second.returncode == 125, second.stderr
    assert (tmp_path / "made").exists() and not (tmp_path / "ran").exists()
    assert "not run, because log/a.log failed" in log_of(tmp_path, "b")


def test_a_deleted_job_is_noticed_within_15_seconds(begin, engine, tmp_path):
    process = begin("log/x.log", "sleep", "100")
    assert wait_until(lambda: "sleep 100" in log_of(tmp_path), 30)
    time.sleep(6)
    (identity,) = tmp_path.glob("log/.jobs/*/id")
    began = time.monotonic()
    engine.ask("qdel", identity.read_text().strip())
    _, error = process.communicate(timeout=40)
    assert process.returncode == 1 and "unknown to the scheduler" in error
    assert time.monotonic() - began < 15


def test_a_training_that_is_notified_saves_and_goes_on(begin, engine, tmp_path):
    training = (
        'echo "from $(cat saved 2>/dev/null || echo nothing)"; [ -e saved ] && exit 0; '
        'until [ -e "$ESPNET_PRUNE_TASK.stop" ]; do sleep 0.1; done; echo update > saved; exit 75'
    )
    process = begin("--stop-seconds", "10", "log/x.log", "bash", "-c", training)
    assert wait_until(lambda: "from nothing" in log_of(tmp_path), 30)
    (identity,) = tmp_path.glob("log/.jobs/*/id")
    engine.ask("qmod", "-rj", identity.read_text().strip())  # as when another job needs the place
    _, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    assert "from update" in log_of(tmp_path)


def test_whoever_is_interrupted_leaves_no_job_behind(begin, engine, tmp_path):
    process = begin("JOB=1:3", "log/x.JOB.log", "sleep", "100")
    assert wait_until(lambda: "sleep" in log_of(tmp_path, "x.1"), 30)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == -15 and "cancelling" in error
    assert wait_until(lambda: not engine.queued(), 20), engine.queued()


def test_a_wrong_queue_is_named_with_its_file(on_engine, tmp_path):
    site = tmp_path / "site.conf"
    site.write_text("command qsub -V\noption gpu=* -q nowhere.q\n")
    done = on_engine("--config", str(site), "--gpu", "1", "log/x.log", "true")
    assert done.returncode == 2, done.stderr
    assert "nowhere.q" in done.stderr and f"{site}, line 2" in done.stderr
