"""The submitting program without a scheduler: back-end local, and what it refuses."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from throw_away_slurm import heed_interrupts, runs, wait_until

SUBMIT = Path(__file__).resolve().parents[2] / "utils/submit.py"


def test_output_goes_to_the_terminal_and_to_the_log(submit, tmp_path):
    done = submit("logs/x.log", "bash", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\nerr\n", "")
    lines = (tmp_path / "logs/x.log").read_text().splitlines()
    assert lines[0].startswith("# 20") and "bash -c" in lines[0]
    assert lines[1:3] == ["out", "err"]
    assert lines[3].startswith("# ended after") and lines[3].endswith("status 7")
    submit("logs/x.log", "true")
    assert len((tmp_path / "logs/x.log").read_text().splitlines()) == 6
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["x.log"]


def test_tasks_write_logs_and_a_failed_one_runs_again(submit, tmp_path):
    command = (
        "[ X = 2 ] && [ ! -e again ] && touch again && exit 1; [ X = 3 ] && exit 4; echo did X"
    )
    done = submit("--max-jobs-run", "2", "X=1:4", "x.X.log", "bash", "-c", command)
    assert done.returncode == 1 and not done.stdout
    assert "1 of 4 failed" in done.stderr
    assert "task 3: exit status 4, also when it was run once more" in done.stderr
    assert "did 4" in (tmp_path / "x.4.log").read_text()
    assert (tmp_path / "x.2.log").read_text().count("# ended") == 2


def test_wrong_input_is_not_tried_again(submit, tmp_path):
    done = submit("X=1:2", "x.X.log", "bash", "-c", "echo error: no such key; [ X = 1 ] || exit 2")
    assert done.returncode == 2
    assert "task 2: exit status 2; log" in done.stderr and "| error: no such key" in done.stderr
    assert (tmp_path / "x.2.log").read_text().count("# ended") == 1
    done = submit("X=1:2", "x.X.log", "bash", "-c", "exit X")
    assert done.returncode == 1 and "task 1: exit status 1, also when" in done.stderr


def test_no_more_tasks_at_once_than_allowed(submit, tmp_path):
    command = "mkdir one && sleep 0.05 && rmdir one"
    done = submit("--max-jobs-run", "1", "JOB=1:4", "x.JOB.log", "bash", "-c", command)
    assert done.returncode == 0, done.stderr


def test_memory_is_that_of_the_command(submit, tmp_path):
    program = "x = b'1' * 300_000_000"
    submit("x.log", "bash", "-c", f'{sys.executable} -c "{program}"; true')
    text = (tmp_path / "x.log").read_text()
    assert 290 < int(text.split("peak memory ")[1].split()[0]) < 400


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_and_what_it_started(tmp_path, number):
    command = [sys.executable, str(SUBMIT), "x.log", "bash", "-c", "sleep 77 & echo $!; wait"]
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    child = int(process.stdout.readline())
    process.send_signal(number)
    assert process.wait(20) == -number
    assert wait_until(lambda: not runs(child), 5)
    assert not list((tmp_path / "tmp").iterdir())
    assert (tmp_path / "x.log").read_text().splitlines()[-1].startswith("# ended after")


def test_a_command_that_does_not_exist(submit, tmp_path):
    done = submit("x.log", "/no/such/program")
    assert done.returncode == 127
    assert "error: /no/such/program: No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--memm", "4G", "x.log", "true"], "unknown option --memm (did you mean 'mem'?)"),
        (["--mem"], "--mem needs a value"),
        (["--mem", "4G", "x.log"], "expected LOG COMMAND"),
        (["JOB=1:2", "x.log", "true"], "x.log: the log of several tasks needs JOB"),
        (["JOB=2:1", "x.JOB.log", "true"], "JOB=2:1: expected NAME=FIRST:LAST"),
        (["--backend", "slrm", "x.log", "true"], "'slrm' is none of local, slurm, sge"),
        (["--wait", "no", "x.log", "true"], "--wait: 'no' is not true or false"),
        (["--wait=false", "x.log", "true"], "--wait false and --after need --backend slurm"),
        (["--max-jobs-run=x-y", "x.log", "true"], "--max-jobs-run: 'x-y' is not a whole number"),
        (["--backend", "slurm", "--config", "nowhere.conf", "x.log", "true"], "nowhere.conf"),
    ],
)
def test_wrong_words_are_named(submit, tmp_path, words, expected):
    done = submit(*words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert not list(tmp_path.iterdir())


def test_help(submit):
    done = submit("--help")
    assert done.returncode == 0 and "--stop-seconds" in done.stdout
