"""The status of an experiment, from files that a test writes."""

import os
import socket
import subprocess
import sys

import pytest

from espnet_prune.cli import run
from espnet_prune.cluster.job import Job, record, write_id
from espnet_prune.cluster.status import command_states, describe
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import write_json
from espnet_prune.record import mark_begun, mark_finished

HERE = socket.gethostname()
BEGAN = "# 2026-01-02 03:04:05 {host} process {process}: python -m x\n"
DONE = "# ended after 12.5 s, peak memory 321 MiB, status 0\n"


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path


def write(experiment, name, *lines, host=HERE, process=1):
    text = "".join(lines).replace("{host}", host).replace("{process}", str(process))
    (experiment / "log" / name).write_text(text)


def states(experiment):
    return {command.log.name: command.state for command in command_states(experiment / "log")}


def test_done_failed_killed_running_elsewhere_and_unknown(experiment):
    write(experiment, "01_a.log", BEGAN, "text\n", DONE)
    write(experiment, "02_b.log", BEGAN, DONE, BEGAN, "boom\n", DONE.replace("s 0", "s 3"))
    write(experiment, "03_c.log", BEGAN, DONE, BEGAN, "the last word\n", process=2**22 + 1)
    write(experiment, "04_d.log", BEGAN, host="another")
    write(experiment, "05_e.log", "something else\n")
    assert states(experiment) == {
        "01_a.log": "done",
        "02_b.log": "FAILED",
        "03_c.log": "ENDED EARLY",
        "04_d.log": "running",
        "05_e.log": "unknown",
    }
    text = describe(experiment)
    assert "2026-01-02 03:04:05 on " + HERE + ", 12.5 s, 321 MiB" in text
    assert "exit status 3 after 12.5 s\n      | # 2026" in text
    assert "      | boom\n" in text and "      | the last word\n" in text
    assert text.splitlines()[-1] == "1 done, 1 running, 1 FAILED, 1 ENDED EARLY, 1 unknown"


def test_a_number_that_another_process_has_now_is_not_the_command(experiment):
    write(experiment, "01_a.log", BEGAN, process=os.getpid())
    assert states(experiment) == {"01_a.log": "ENDED EARLY"}


def test_a_real_command_while_it_runs_and_afterwards(experiment, repository):
    command = [sys.executable, str(repository / "utils/submit.py"), "log/x.log"]
    process = subprocess.Popen(
        [*command, "bash", "-c", "echo begun; read; exit 3"],
        cwd=experiment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    assert states(experiment) == {"x.log": "running"}
    process.communicate(b"go\n")
    assert states(experiment) == {"x.log": "FAILED"}


QSTAT = """<?xml version='1.0'?>
<job_info><queue_info>
<job_list state="running">
<JB_job_number>5</JB_job_number><state>Rr</state><tasks>1</tasks></job_list>
</queue_info><job_info>
<job_list state="pending">
<JB_job_number>5</JB_job_number><state>hqw</state><tasks>2</tasks></job_list>
</job_info></job_info>
"""


def test_grid_engine_s_own_letters_say_what_runs(experiment, monkeypatch):
    folder = experiment / "log/.jobs/x"
    record(Job("sge", "log/x.JOB.log", ("true",), str(experiment), "JOB", 1, 3), folder)
    write_id(folder, "5")
    (experiment / "qstat").write_text(f"#!/bin/sh\ncat <<'EOF'\n{QSTAT}EOF\n")
    (experiment / "qstat").chmod(0o755)
    monkeypatch.setenv("PATH", f"{experiment}:{os.environ['PATH']}")
    assert states(experiment) == {"x.1.log": "running", "x.2.log": "queued", "x.3.log": "queued"}


def test_products_are_done_or_so_many_epochs_far(experiment, capsys):
    mark_finished(experiment / "stats", {})
    mark_begun(experiment / "l0_50/prune", {"max_epoch": 7})
    write_json(experiment / "l0_50/prune/train_seconds.json", {"epochs": {"1": 2.0, "2": 2.0}})
    mark_begun(experiment / "teacher/train", {"max_epoch": 7})
    mark_begun(experiment / "other/train", {"max_epoch": 7})
    mark_finished(experiment / "other", {})
    assert run(["status", str(experiment)]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["stats", "done"] in lines
    assert ["l0_50/prune", "begun, epoch 2 of 7 saved"] in lines
    assert ["teacher/train", "begun"] in lines
    assert ["other", "done"] in lines
    assert not [line for line in lines if line[:1] == ["other/train"]]


def test_a_missing_experiment_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        describe(tmp_path / "nowhere")
