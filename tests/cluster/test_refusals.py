"""What schedulers say when they take no job: what passes is waited for, the rest has its remedy."""

import os

import pytest

from espnet_prune.cluster import client
from espnet_prune.cluster.job import Job
from espnet_prune.cluster.sge import GridEngine
from espnet_prune.cluster.site import read_site
from espnet_prune.cluster.slurm import Slurm
from espnet_prune.errors import ConfigError, EnvironmentProblem

# Says a line of the file "says" and fails, as long as there are any; then takes the job.
PROGRAM = """#!/bin/sh
cd {folder}
if [ -s says ]; then
    head -n 1 says >&2
    sed -i 1d says
    exit 1
fi
echo 7
"""
PASSING = [
    "sbatch: error: Batch job submission failed: Unexpected message received",
    "sbatch: error: Batch job submission failed: Resource temporarily unavailable",
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
    "sbatch: error: Batch job submission failed: Connection reset by peer",
    "sbatch: error: Batch job submission failed: Message receive failure",
    "sbatch: error: Batch job submission failed: Slurm backup controller in standby mode",
    "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
    "sbatch: error: Unable to contact slurm controller (connect failure)",
    "sbatch: error: Munged communication error: Socket communication error (retrying)",
]
PASSING_SGE = [
    "error: commlib error: got select error (Connection refused)",
    "Unable to run job: unable to send message to qmaster using port 6444: got send error",
    'error: unable to contact qmaster using port 6444 on host "a"',
]
REFUSED = [
    ("Batch job submission failed: Invalid job array specification", "lower --nj.*MaxArraySize"),
    (
        "error: QOSMaxSubmitJobPerUserLimit error: Batch job submission failed: Job violates "
        "accounting/QOS policy (job submit limit, user's size and/or time limits)",
        "other jobs have ended, or a lower --nj: every job of an array counts; `sacctmgr",
    ),
    ("error: AssocMaxSubmitJobLimit", "other jobs have ended, or a lower --nj"),
    ("error: QOSMaxWallDurationPerJobLimit", "a shorter --time"),
    ("Requested time limit is invalid (missing or exceeds some limit)", "a shorter --time"),
    ("error: QOSMaxCpuPerUserLimit", "less of --mem, --num-threads or --gpu"),
    (
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
        "a lower --nj.*or less of --time",
    ),
    ("Requested node configuration is not available", "no machine of the partition has so much"),
    ("Invalid generic resource (gres) specification", "no machine of the partition has so much"),
    ("invalid partition specified: gpu", "conf/slurm.conf"),
    ("Invalid account or account/partition combination specified", "conf/slurm.conf"),
    ("Invalid qos specification", "conf/slurm.conf"),
    ("Job dependency problem", "the recipe's command again"),
    ("job rejected: Only 75000 tasks are allowed per job", "lower --nj.*max_aj_tasks"),
    ("job rejected: only 10 jobs are allowed per user (current job count: 10)", "lower --nj"),
]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The folder of programs that play a scheduler's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "qsub"):
        (folder / name).write_text(PROGRAM.format(folder=folder))
        (folder / name).chmod(0o755)
    for name, prints in (("squeue", ""), ("qstat", "<job_info/>")):
        (folder / name).write_text(f"#!/bin/sh\necho '{prints}'\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(client, "SUBMIT_PAUSE_SECONDS", 0.01)
    return folder


@pytest.fixture
def submit(programs, tmp_path, repository):
    """Submits a job; returns its number."""

    def call(backend: str) -> str:
        engine, name = {"slurm": (Slurm(), "slurm.conf"), "sge": (GridEngine(), "queue.conf")}[
            backend
        ]
        job = Job(backend, "log/x.log", ("true",), str(tmp_path))
        folder = tmp_path / "records"
        return engine.submit(job, folder, read_site(repository / "conf" / name), {})

    return call


def cases():
    yield from (("slurm", text) for text in PASSING)
    yield from (("sge", text) for text in PASSING_SGE)


@pytest.mark.parametrize(("backend", "text"), list(cases()))
def test_what_passes_is_waited_for(programs, submit, backend, text):
    (programs / "says").write_text(f"{text}\n" * 2)
    assert submit(backend) == "7"
    assert (programs / "says").read_text() == ""


@pytest.mark.parametrize("backend", ["slurm", "sge"])
def test_what_does_not_pass_in_minutes_is_given_up(programs, submit, backend, monkeypatch):
    monkeypatch.setattr(client, "SUBMIT_SECONDS", 0.0)
    (programs / "says").write_text("Connection refused\n" * 9)
    with pytest.raises(EnvironmentProblem, match="no answer for .*Connection refused; give"):
        submit(backend)


@pytest.mark.parametrize(("backend", "listed"), [("slurm", "9"), ("sge", None)])
def test_a_job_that_was_taken_though_its_answer_was_lost_is_not_submitted_again(
    programs, submit, backend, listed, tmp_path
):
    (programs / "says").write_text("Connection reset by peer\n")
    found = "<job_list><JB_job_number>9</JB_job_number><JB_name>jrecords</JB_name></job_list>"
    prints = listed or f"<job_info>{found}</job_info>"
    (programs / {"slurm": "squeue", "sge": "qstat"}[backend]).write_text(
        f"#!/bin/sh\necho '{prints}'\n"
    )
    assert submit(backend) == "9"


@pytest.mark.parametrize(("text", "remedy"), REFUSED)
def test_a_refusal_has_the_remedy_that_helps(programs, submit, text, remedy):
    backend = "sge" if text.startswith("job rejected") else "slurm"
    (programs / "says").write_text(f"{text}\n")
    with pytest.raises(ConfigError, match=f"refused the job: .*(?s:.*)What helps: .*{remedy}"):
        submit(backend)


def test_a_refusal_of_another_kind_is_told_as_it_is(programs, submit):
    (programs / "says").write_text("sbatch: error: the moon is full\n")
    with pytest.raises(ConfigError, match="the moon is full") as caught:
        submit("slurm")
    assert "What helps" not in str(caught.value)
