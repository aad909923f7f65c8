"""A small recipe submitted whole to a real Slurm of two nodes: interrupted, resumed, finished."""

import signal
import subprocess
from pathlib import Path

import mini_recipe
import pytest
from safetensors.torch import load_file
from throw_away_slurm import wait_until

from espnet_prune.cluster.status import command_states, folder_states

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]


@pytest.fixture
def drive(tmp_path: Path, repository: Path, slurm, warm):
    """Starts the driver's stages 5 to 10 by Slurm, and waits for their end."""
    mini_recipe.write_recipe(tmp_path, repository)
    command = [
        str(repository / "egs/TEMPLATE/prune1/prune.sh"),
        *("--conf_dir", str(tmp_path / "conf"), "--work_dir", str(tmp_path), "--nj", "1"),
        *("--stage", "statistics", "--stop_stage", "finetune", "--skip_stages", "score_teacher"),
        *("--speed_factors", "1.0"),
        *("--cmd_backend", "slurm"),
    ]
    environment = {**mini_recipe.environment(), **slurm.environment}
    environment |= {"PATH": mini_recipe.environment()["PATH"], "ESPNET_PRUNE_CURRENT_ENV": "1"}
    environment = warm.environment(environment)

    def call(*words: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [*command, *words], env=environment, start_new_session=True, **pipes
        )

    return call


def test_a_recipe_interrupted_and_resumed_is_finished(drive, slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    process = drive("--wait")
    experiment = tmp_path / "exp/base"
    saved = experiment / "l0/prune/checkpoint.pth"
    assert wait_until(lambda: saved.exists() or process.poll() is not None, 600), slurm.queued()
    assert process.poll() is None, process.communicate()
    second = drive()
    assert second.wait(60) == 2
    assert "still queued or running" in second.stderr.read()
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode != 0 and "cancelling" in error
    assert wait_until(lambda: not slurm.queued(), 20), slurm.queued()
    assert ("l0/prune", "begun, epoch 1 of 3 saved") in folder_states(experiment)

    process = drive()  # returns
    output, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    assert "Watch:" in output and slurm.queued()
    assert wait_until(lambda: not slurm.queued(), 900, 1)
    states = {command.log.name: command.state for command in command_states(experiment / "log")}
    assert set(states.values()) == {"done"}, states
    assert "08_prune.2.log" in states  # one log a system
    assert load_file(experiment / "l0/model/model.safetensors")
    assert load_file(experiment / "magnitude/model/model.safetensors")
