"""Jobs of one shell command on a real Slurm: how they end, and what becomes of whoever waits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from throw_away_slurm import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]
SUBMIT = Path(__file__).resolve().parents[2] / "utils/submit.py"
# Two runs: the first asks for the file and waits to be stopped, the second finds it.
TWICE = "test -e begun && echo second && exit; touch begun; echo first; sleep 100"
# A training: "saves" and ends when the file of its job asks it to.
TRAINING = """
echo "from $(cat saved 2>/dev/null || echo nothing)"
[ -e saved ] && exit 0
for i in $(seq 1000); do
    if [ -e "$ESPNET_PRUNE_TASK.stop" ]; then echo update $i > saved; exit 75; fi
    sleep 0.1
done
"""


def log_of(folder: Path, name: str = "x") -> str:
    path = folder / f"log/{name}.log"
    return path.read_text() if path.exists() else ""


def number_of(folder: Path) -> str:
    """Slurm's number of the only submission."""
    (path,) = folder.glob("log/.jobs/*/id")
    return path.read_text().strip()


def wait_for_log(folder: Path, text: str, seconds: float = 30) -> None:
    assert wait_until(lambda: text in log_of(folder), seconds), log_of(folder)


def test_a_log_begins_with_the_command_and_ends_with_what_it_took(on_slurm, tmp_path):
    done = on_slurm("log/x.log", "bash", "-c", "echo $0 $PWD; exit 7", "a b")
    assert done.returncode == 7
    first, printed, last = log_of(tmp_path).splitlines()
    assert first.startswith("# 20") and first.endswith("bash -c 'echo $0 $PWD; exit 7' 'a b'")
    assert printed == f"a b {tmp_path}"
    assert "# ended after 0." in last and "MiB, status 7" in last
    assert "exit status 7" in done.stderr and "log/x.log" in done.stderr


def test_a_failed_task_of_an_array_is_run_once_more_and_named(on_slurm, tmp_path):
    command = "[ JOB = 3 ] && exit 4; [ JOB = 2 ] && [ ! -e again ] && touch again && exit 1; true"
    done = on_slurm("--max-jobs-run", "2", "JOB=1:4", "log/x.JOB.log", "bash", "-c", command)
    assert done.returncode == 1
    assert "1 of 4 failed" in done.stderr
    assert "task 3: exit status 4, also when it was run once more" in done.stderr
    runs = {n: log_of(tmp_path, f"x.{n}").count("# ended") for n in range(1, 5)}
    assert runs == {1: 1, 2: 2, 3: 2, 4: 1}


def test_a_job_waits_for_another_and_is_dropped_when_that_fails(on_slurm, slurm, tmp_path):
    first = on_slurm("--wait", "false", "log/a.log", "bash", "-c", "sleep 1; touch made")
    assert first.returncode == 0, first.stderr
    second = on_slurm("--after", first.stdout.strip(), "log/b.log", "test", "-e", "made")
    assert second.returncode == 0, second.stderr
    third = on_slurm("--wait", "false", "log/c.log", "bash", "-c", "sleep 1; false")
    fourth = on_slurm("--after", third.stdout.strip(), "log/d.log", "true")
    assert fourth.returncode == 1 and "CANCELLED" in fourth.stderr
    assert not log_of(tmp_path, "d")


def test_a_cancelled_job_is_noticed_within_15_seconds(begin, slurm, tmp_path):
    process = begin("log/x.log", "sleep", "100")
    wait_for_log(tmp_path, "sleep 100")
    time.sleep(8)  # until it asks at its longest interval
    began = time.monotonic()
    slurm.ask("scancel", number_of(tmp_path))
    _, error = process.communicate(timeout=30)
    assert time.monotonic() - began < 15
    assert process.returncode == 1 and "CANCELLED" in error


def test_a_training_asked_to_stop_saves_and_goes_on(begin, slurm, tmp_path):
    process = begin("--stop-seconds", "60", "log/x.log", "bash", "-c", TRAINING)
    wait_for_log(tmp_path, "from nothing")
    slurm.ask("scancel", "--batch", "--signal=USR1", number_of(tmp_path))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    text = log_of(tmp_path)
    assert text.index("from nothing") < text.index("status 75") < text.index("from update")


@pytest.mark.timeout(300)
def test_a_time_limit_is_announced_and_outlived(begin, tmp_path):
    """Slurm looks at limits twice a minute, and grants whole minutes."""
    process = begin("--time", "1", "--stop-seconds", "40", "log/x.log", "bash", "-c", TRAINING)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    assert "from update" in log_of(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_epoch_longer_than_the_time_limit_is_not_queued_again_and_again(begin, tmp_path):
    program = (
        "import time; from espnet_prune.job_control import begin_training; "
        "begin_training('exp/train', 0); time.sleep(1000)"
    )
    words = ("--time", "1", "--stop-seconds", "40", "log/x.log", sys.executable, "-c", program)
    process = begin(*words)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 1, error
    text = log_of(tmp_path)
    assert text.count("to be run once more") == 1
    assert "exp/train: epoch 1 is longer than this job may run" in text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_command_that_does_not_stop_is_queued_again_all_the_same(begin, slurm, tmp_path):
    process = begin("--stop-seconds", "4", "log/x.log", "bash", "-c", TWICE)
    wait_for_log(tmp_path, "\nfirst\n")
    slurm.ask("scancel", "--batch", "--signal=USR1", number_of(tmp_path))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "not saved in time" in log_of(tmp_path) and "\nsecond\n" in log_of(tmp_path)


def test_a_killed_job_has_its_state_for_a_reason(begin, slurm, tmp_path):
    """As after too much memory: nobody was left to write an exit status."""
    process = begin("log/x.log", "sleep", "100")
    wait_for_log(tmp_path, "sleep 100")
    os.kill(int(log_of(tmp_path).split(" process ")[1].split(":")[0]), signal.SIGKILL)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "FAILED; log" in error


@pytest.mark.slow
def test_preemption_saves_and_queues_again(begin, slurm, tmp_path):
    site = tmp_path / "slurm.conf"
    site.write_text(
        "command sbatch --partition=low --exclusive --nodes=2\n"
        "option stop_seconds=* --signal=B:USR1@$0\n"
    )
    process = begin(
        "--config", str(site), "--stop-seconds", "60", "log/x.log", "bash", "-c", TRAINING
    )
    wait_for_log(tmp_path, "from nothing")
    urgent = begin("log/urgent.log", "true")
    assert urgent.wait(60) == 0
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "from update" in log_of(tmp_path)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("declared", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_job_of_a_lost_node_runs_again(begin, slurm, tmp_path, declared):
    """The controller finds out by itself, in half a minute, or is told."""
    process = begin("log/x.log", "bash", "-c", "echo $SLURMD_NODENAME; " + TWICE)
    wait_for_log(tmp_path, "\nfirst\n")
    node = int(log_of(tmp_path).split("\nn")[1][0])
    slurm.power_off(node)
    try:
        if declared:
            slurm.ask("scontrol", "update", f"NodeName=n{node}", "State=DOWN", "Reason=test")
        _, error = process.communicate(timeout=100)
        assert process.returncode == 0, error
        assert "\nsecond\n" in log_of(tmp_path)
    finally:
        slurm.start_node(node)
        slurm.ask("scontrol", "update", f"NodeName=n{node}", "State=RESUME")
        assert wait_until(slurm.is_idle, 30)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seconds", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_a_controller_away_for_a_while_is_waited_for(begin, slurm, tmp_path, seconds):
    process = begin("log/x.log", "bash", "-c", "until [ -e go ]; do sleep 0.1; done; echo ended")
    wait_for_log(tmp_path, "until")
    slurm.stop_controller()
    try:
        time.sleep(seconds)
        assert process.poll() is None
    finally:
        slurm.start_controller()
    (tmp_path / "go").touch()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "\nended\n" in log_of(tmp_path)


def test_a_job_may_end_while_the_controller_is_away(begin, slurm, tmp_path):
    process = begin("log/x.log", "bash", "-c", "sleep 3; exit 5")
    wait_for_log(tmp_path, "exit 5")
    slurm.stop_controller()
    time.sleep(5)
    slurm.start_controller()
    process.communicate(timeout=60)
    assert process.returncode == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_is_interrupted_leaves_no_job_behind(begin, slurm, tmp_path, number):
    process = begin("JOB=1:6", "log/x.JOB.log", "sleep", "100")
    assert wait_until(lambda: "sleep" in log_of(tmp_path, "x.1"), 30)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == -number
    assert "cancelling" in error
    assert wait_until(lambda: not slurm.queued(), 10)


def test_whoever_is_interrupted_while_submitting_leaves_no_job_behind(begin, slurm, tmp_path):
    for delay in (0.08, 0.12, 0.16):  # around the submission
        process = begin("log/x.log", "sleep", "100")
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert wait_until(lambda: not slurm.queued(), 10)


def test_what_nohup_ignores_does_not_cancel(slurm, tmp_path):
    command = [sys.executable, str(SUBMIT), "--backend", "slurm", "log/x.log", "sleep", "3"]
    process = subprocess.Popen(["nohup", *command], cwd=tmp_path, env=slurm.environment)
    assert wait_until(lambda: "sleep" in log_of(tmp_path), 30)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 0


def test_a_wrong_partition_is_named_with_its_file(on_slurm, tmp_path):
    site = tmp_path / "site.conf"
    site.write_text("command sbatch\noption gpu=* --partition=nowhere --exclusive\n")
    done = on_slurm("--config", str(site), "--gpu", "1", "log/x.log", "true")
    assert done.returncode == 2
    assert "invalid partition specified: nowhere" in done.stderr
    assert "--partition=nowhere --exclusive: from --gpu" in done.stderr
    assert f"{site}, line 2" in done.stderr
    assert not list(tmp_path.glob("log/.jobs/*"))


def test_a_wrong_value_is_named_by_its_option(on_slurm):
    done = on_slurm("--time", "soon", "log/x.log", "true")
    assert done.returncode == 2
    assert "--time=soon: from --time (" in done.stderr and "conf/slurm.conf" in done.stderr
    assert "cpus" not in done.stderr


def test_threads_are_those_of_the_job(on_slurm, tmp_path):
    done = on_slurm("--num-threads", "2", "log/x.log", "bash", "-c", "echo =$OMP_NUM_THREADS=")
    assert done.returncode == 0, done.stderr
    assert "\n=2=\n" in log_of(tmp_path)


def test_without_slurm_s_programs_the_error_says_so(submit, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    done = submit("--backend", "slurm", "log/x.log", "true", environment={"PATH": str(folder)})
    assert done.returncode == 2
    assert "sbatch: no such program" in done.stderr
