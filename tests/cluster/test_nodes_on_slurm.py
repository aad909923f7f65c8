"""A training on the two nodes of a real Slurm: one torchrun on each, one rendezvous."""

import csv
import subprocess
import sys

import mini_recipe
import pytest
from throw_away_slurm import wait_until

from espnet_prune.cluster.nodes import check_job, srun_command
from espnet_prune.errors import EnvironmentProblem

RANKS = """\
import os
names = "RANK WORLD_SIZE LOCAL_RANK GROUP_RANK SLURMD_NODENAME OMP_NUM_THREADS"
open("rank" + os.environ["RANK"], "w").write(" ".join(os.environ[n] for n in names.split()))
"""
LAUNCH = """\
import os, socket, sys
from espnet_prune.cluster.nodes import free_port, srun_command
endpoint = f"{socket.gethostname()}:{free_port()}"
words = srun_command(2, 1, sys.argv[1:], endpoint, os.environ)
os.execvp(words[0], words)
"""


def test_every_node_gets_one_torchrun_with_the_job_s_processors():
    job = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2", "SLURM_CPUS_PER_TASK": "8"}
    words = srun_command(3, 4, ["module", "--ngpu", "1"], "n1:5000", job)
    assert words[:4] == ["srun", "--nodes=3", "--ntasks=3", "--ntasks-per-node=1"]
    assert {"--cpus-per-task=8", "--kill-on-bad-exit=1", "--rdzv-id=7.2"} < set(words)
    assert {"--nnodes=3", "--nproc-per-node=4", "--rdzv-endpoint=n1:5000"} < set(words)
    assert words[-4:] == ["-m", "module", "--ngpu", "1"]


def test_what_is_no_job_or_one_of_another_size_is_named():
    with pytest.raises(EnvironmentProblem, match="--nodes 2: this is no Slurm job.*slurm"):
        check_job(2, {})
    with pytest.raises(EnvironmentProblem, match="the job has 1; .*cuda_cmd"):
        check_job(2, {"SLURM_JOB_NUM_NODES": "1"})
    check_job(2, {"SLURM_JOB_NUM_NODES": "2"})


@pytest.mark.cluster
@pytest.mark.timeout(150)
def test_both_nodes_join_one_rendezvous(on_slurm, tmp_path):
    (tmp_path / "ranks.py").write_text(RANKS)
    options = ["--nodes", "2", "--num-threads", "2", "log/x.log"]
    done = on_slurm(*options, sys.executable, "-c", LAUNCH, "ranks")
    assert done.returncode == 0, done.stderr + (tmp_path / "log/x.log").read_text()
    first, second = ((tmp_path / f"rank{rank}").read_text().split() for rank in (0, 1))
    assert first[:3] == ["0", "2", "0"] and second[:3] == ["1", "2", "0"]
    assert {first[4], second[4]} == {"n1", "n2"}
    assert first[5] == second[5] == "2"


@pytest.mark.cluster
@pytest.mark.timeout(150)
def test_a_lost_process_ends_the_job_on_both_nodes(on_slurm, slurm, tmp_path):
    (tmp_path / "lost.py").write_text(
        "import os, sys, time\nsys.exit(3) if os.environ['RANK'] == '1' else time.sleep(300)\n"
    )
    done = on_slurm("--nodes", "2", "log/x.log", sys.executable, "-c", LAUNCH, "lost")
    assert done.returncode > 0
    assert "exitcode  : 3" in (tmp_path / "log/x.log").read_text()
    assert not slurm.queued()


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_two_nodes_asked_to_stop_go_on_to_the_loss_curve_of_one_process(
    slurm, tmp_path, repository, warm
):
    folder = tmp_path / "one"
    mini_recipe.write_plain_recipe(folder, repository)
    mini_recipe.run(folder, "collect_stats", warm=warm)
    again = mini_recipe.copy_without(folder, tmp_path / "two", [])
    mini_recipe.run(folder, "train_teacher", warm=warm)
    (again / "exp/base").mkdir()
    (again / "exp/stats").rename(again / "exp/base/stats")
    command = [
        *mini_recipe.driver_command(again, repository),
        *("--speed_factors", "1.0", "--stage", "teacher", "--stop_stage", "teacher"),
        *("--cmd_backend", "slurm", "--nodes", "2", "--wait"),
    ]
    environment = {**mini_recipe.environment(), "SLURM_CONF": slurm.environment["SLURM_CONF"]}
    environment["ESPNET_PRUNE_CURRENT_ENV"] = "1"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    log = again / "exp/base/log/06_teacher.1.log"
    assert wait_until(lambda: log.exists() and "espnet_prune nodes" in log.read_text(), 60)
    slurm.ask("scancel", "--batch", "--signal=USR1", slurm.queued()[0].split()[0])
    assert wait_until(lambda: "# to be run once more" in log.read_text(), 300), log.read_text()
    for path in log.parent.glob(".jobs/*/0.training"):
        path.unlink()  # it would say that no epoch was finished, which is an error the second time
    _, error = process.communicate(timeout=400)
    assert process.returncode == 0, error
    assert log.read_text().count("stopped as asked: ") == 2  # by the process on each node
    assert log.read_text().count("# ended after") == 2  # asked to stop, it was queued again
    files = [
        folder / "exp/teacher/train/progress.csv",
        again / "exp/base/teacher/train/progress.csv",
    ]
    one, two = (list(csv.DictReader(path.open(newline=""))) for path in files)
    assert [(r["epoch"], r["update"]) for r in one] == [(r["epoch"], r["update"]) for r in two]
    for key in ("loss", "loss_ctc", "loss_att"):
        theirs = [float(row[key]) for row in one]
        assert [float(row[key]) for row in two] == pytest.approx(theirs, rel=1e-4)
    assert float(one[0]["loss"]) > 1.01 * float(one[-1]["loss"])
