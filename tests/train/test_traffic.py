"""Compressed gradients between two processes: what arrives, and how many bytes were sent."""

import json
import subprocess
import sys

import mini_recipe
import pytest

from espnet_prune.errors import ConfigError
from espnet_prune.methods.options import GradientsConfig

TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
NUMBERS = 64 * 64  # of the weight, the only parameter
TOGETHER = """\
import json
from pathlib import Path
from types import SimpleNamespace
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from espnet_prune.methods.options import GradientsConfig
from espnet_prune.train.distributed import leave, process_rank
from espnet_prune.train.traffic import FILE, compress_traffic, record_traffic

distributed.init_process_group("gloo")
rank = process_rank()

class Model(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = torch.nn.Linear(64, 64, bias=False)
        self.options = SimpleNamespace(gradients=config)

    def forward(self, gradient):
        return (self.layer.weight * gradient).sum()

def gradients(updates, **config):
    '''Of each update, where process r gives (r + 1) g for a rank-1 g with an order of sizes.'''
    torch.manual_seed(0)
    model = DistributedDataParallel(Model(GradientsConfig(**config)))
    compress_traffic(model)
    compress_traffic(model)  # a second epoch
    found = []
    for _ in range(updates):
        model.zero_grad()
        model((rank + 1) * G).backward()
        found.append(model.module.layer.weight.grad.clone())
    record_traffic(model, Path("."))
    sent = json.loads(Path(FILE).read_text()) if rank == 0 and config["kind"] != "none" else {}
    return found, sent

G = torch.outer(torch.linspace(1, 2, 64), torch.linspace(1, 3, 64))
mean = 1.5 * G
found, _ = gradients(1, kind="none")
assert torch.allclose(found[0], mean)

found, sent = gradients(2, kind="fp16")
assert torch.allclose(found[1], mean, rtol=2e-3)
assert not sent or sent["sent_bytes"] * 2 == sent["whole_bytes"]

found, sent = gradients(2, kind="topk", share=0.25)
flat = found[0].flatten()
largest = mean.flatten().topk(1024).indices
assert (flat != 0).sum() == 1024 and torch.allclose(flat[largest], mean.flatten()[largest])
again = found[1].flatten()
left = (flat == 0) & (again != 0)  # what was left out comes with the next gradient
assert left.any() and torch.allclose(again[left], 2 * mean.flatten()[left])
assert not sent or sent["sent_bytes"] == 2 * 1024 * 8

found, sent = gradients(6, kind="powersgd", rank=1)
assert torch.allclose(found[-1], mean, rtol=1e-2), (found[-1] - mean).abs().max()
assert not sent or sent["sent_bytes"] < 0.6 * sent["whole_bytes"]
if rank == 0:
    Path("passed").write_text("yes")
leave()
"""


@pytest.mark.timeout(300)
def test_two_processes_get_the_mean_of_what_is_sent(tmp_path):
    (tmp_path / "together.py").write_text(TOGETHER)
    done = subprocess.run(
        [*TWO, "together.py"],
        cwd=tmp_path,
        env=mini_recipe.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "passed").exists()
    assert json.loads((tmp_path / "traffic.json").read_text())["whole_bytes"] == 6 * 4 * NUMBERS


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="student: gradients: kind"):
        GradientsConfig(kind="fp8")
