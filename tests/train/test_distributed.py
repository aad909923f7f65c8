"""Two processes on the CPU train as one process does on the whole batch."""

import csv
import subprocess
import sys
from pathlib import Path

import mini_recipe
import pytest
import torch

TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TOGETHER = """\
import sys, torch
from torch import distributed
from espnet_prune.train.distributed import is_first, leave, mean_over_processes, process_rank
distributed.init_process_group("gloo")
rank = process_rank()
means = mean_over_processes({"loss": 1.0 + rank, "acc": 0.5}, weight=1.0 + 2 * rank)
assert means == {"loss": (1 * 1 + 2 * 3) / 4, "acc": 0.5}, means
assert is_first() == (rank == 0)

import os
from pathlib import Path
from types import SimpleNamespace
from espnet_prune.train.within_epoch import VARIABLE, Trained, WithinEpoch
os.environ[VARIABLE] = "0" if rank == 0 else "1000"  # the first one's clock decides
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

def epoch():
    recorder = SimpleNamespace(rows=[], batches=0)
    reporter = SimpleNamespace(epoch=1, stats={}, total_count=0, count=0, start_time=0.0)
    trained = Trained(model, [optimizer], [None])
    return WithinEpoch(Path("."), trained, reporter, recorder, 1)

torch.manual_seed(rank)
first = epoch()
for item in first.batches(range(3)):
    if item == 2:
        break
expected = torch.rand(4)  # each process draws its own
distributed.barrier()  # the first one has written
torch.manual_seed(7)
second = epoch()
second.resume()
left = iter(second.batches(range(3)))
assert next(left) == 2 and second.done == 2
assert torch.equal(torch.rand(4), expected)
leave()
assert process_rank() == rank
"""
# Each process keeps its first update's masks and its gates of the end.
WATCHED = """\
import sys, torch
from espnet_prune.cli import run
from espnet_prune.train.distributed import process_rank
from espnet_prune.train.prune_task import PruneTask

class Watched(PruneTask.trainer):
    masks = {}

    @classmethod
    def train_one_epoch(cls, model, **keywords):
        gated = model.module.gated
        if not cls.masks:
            cls.masks = {n: m.detach().clone() for n, m in gated.train().masks().items()}
        invalid = super().train_one_epoch(model=model, **keywords)
        gates = {n: p.detach().clone() for n, p in gated.gates.named_parameters()}
        torch.save({"masks": cls.masks, "gates": gates}, f"rank{process_rank()}.pth")
        return invalid

PruneTask.trainer = Watched
sys.exit(run(["prune", *sys.argv[1:]]))
"""


def run_two(folder: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [*TWO, *arguments],
        cwd=folder,
        env=mini_recipe.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def without_python(command: list[str]) -> list[str]:
    return command[1:]  # -m module ...


@pytest.mark.timeout(300)
def test_means_are_weighted_and_each_process_s_draws_are_saved_within_an_epoch(tmp_path):
    (tmp_path / "means.py").write_text(TOGETHER)
    run_two(tmp_path, ["means.py"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_have_the_loss_curve_of_one_with_the_whole_batch(tmp_path, repository):
    folder = tmp_path / "one"
    mini_recipe.write_plain_recipe(folder, repository)
    mini_recipe.run(folder, "collect_stats")
    again = mini_recipe.copy_without(folder, tmp_path / "two", [])
    mini_recipe.run(folder, "train_teacher")
    run_two(again, without_python(mini_recipe.command("train_teacher")))
    one, two = (rows(f / "exp/teacher/train/progress.csv") for f in (folder, again))
    assert [(r["epoch"], r["update"]) for r in one] == [(r["epoch"], r["update"]) for r in two]
    for key in ("loss", "loss_ctc", "loss_att"):
        theirs = [float(row[key]) for row in one]
        assert [float(row[key]) for row in two] == pytest.approx(theirs, rel=1e-4)
    assert float(one[0]["loss"]) > 1.01 * float(one[-1]["loss"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_prune_with_noise_of_their_own_and_one_set_of_gates(tmp_path, repository):
    folder = tmp_path / "one"
    mini_recipe.write_recipe(folder, repository)
    for main in ("collect_stats", "train_teacher", "prune"):
        mini_recipe.run(folder, main)
    alone = torch.load(folder / "exp/l0/prune/latest.pth", weights_only=True)
    folder = mini_recipe.copy_without(folder, tmp_path / "two", ["exp/l0"])
    (folder / "watched.py").write_text(WATCHED)
    run_two(folder, ["watched.py", *without_python(mini_recipe.command("prune"))[2:]])
    mini_recipe.run(folder, "cut")
    first, second = (torch.load(folder / f"rank{n}.pth") for n in (0, 1))
    assert first["gates"].keys() == second["gates"].keys() and first["gates"]
    for name, gate in first["gates"].items():
        assert torch.equal(gate, second["gates"][name]), f"the processes differ in {name}"
    assert any(not torch.equal(m, second["masks"][n]) for n, m in first["masks"].items())
    both = torch.load(folder / "exp/l0/prune/latest.pth", weights_only=True)
    gates = [name for name in both if name.endswith("log_alpha")]
    assert gates and alone.keys() == both.keys()
    assert any(not torch.equal(alone[name], both[name]) for name in gates)
    progress = rows(folder / "exp/l0/prune/progress.csv")
    assert len(progress) == 12
    assert all(float(row["loss"]) > 0 for row in progress)
