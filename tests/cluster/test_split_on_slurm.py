"""Stages whose work is split among the jobs of an array, submitted to a real Slurm of two nodes."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import mini_recipe
import pytest

from espnet_prune.cluster.status import command_states
from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.data.validate import validate

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def drive(tmp_path: Path, repository: Path, slurm, warm) -> Callable:
    """Runs the driver by Slurm and waits for the end of its jobs."""
    mini_recipe.write_whole_recipe(tmp_path, repository)
    environment = {**mini_recipe.environment(), "SLURM_CONF": slurm.environment["SLURM_CONF"]}
    environment = warm.environment({**environment, "ESPNET_PRUNE_CURRENT_ENV": "1"})
    command = [*mini_recipe.driver_command(tmp_path, repository, 2), "--cmd_backend", "slurm"]

    def call(*options: str, timeout: float = 120) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*command, "--wait", *options],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return call


def test_formatting_is_an_array_and_its_failed_element_is_named(drive, tmp_path):
    recording = Path(read_map(tmp_path / "data/test/wav.scp")["s1-dev01"])
    good = recording.read_bytes()
    recording.write_bytes(b"damaged")
    stage = ["--stage", "format", "--stop_stage", "format", "--speed_factors", "1.0"]
    done = drive(*stage)
    logs = tmp_path / "exp/base/log"
    assert done.returncode == 1
    assert "03_format.5.2.log" in done.stderr  # of the third array, the second element
    assert (logs / "03_format.5.2.log").read_text().count("s1-dev01") >= 2  # it was run twice
    assert not (tmp_path / "dump/test/wav.scp").exists()
    assert (tmp_path / "dump/train/wav.scp").exists()

    recording.write_bytes(good)
    done = drive(*stage)
    assert done.returncode == 0, done.stderr
    assert len(validate(tmp_path / "dump/test")[0].texts) == 6
    states = {command.log.name: command.state for command in command_states(logs)}
    assert {"03_format.1.1.log", "03_format.1.2.log", "03_format.2.log"} <= set(states)
    assert "format_audio" in (logs / "03_format.1.2.log").read_text()
    assert "--part 2/2" in (logs / "03_format.1.2.log").read_text()


@pytest.mark.timeout(1500)
def test_a_whole_recipe_is_submitted_decoded_in_arrays_and_finished(drive, tmp_path):
    shutil.rmtree(tmp_path / "data/test")
    shutil.copytree(tmp_path / "data/train", tmp_path / "data/test")  # a part for each element
    options = ("--valid_set", "test")  # it is scored, too: whole, and validated without odd lengths
    done = drive(*options, timeout=1400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "index.html" in done.stdout  # the report, shown last
    base = tmp_path / "exp/base"
    report = json.loads((base / "report/report.json").read_text())
    assert [system["name"] for system in report["systems"]] == ["teacher", "l0", "magnitude"]
    assert all(set(s["wer"]) == {"test/greedy", "test/joint"} for s in report["systems"])
    assert (base / "pack/l0.zip").exists()
    assert (tmp_path / "dump/test_valid/wav.scp").exists()
    states = {command.log.name: command.state for command in command_states(base / "log")}
    assert set(states.values()) == {"done"}, states
    for element in ("1", "2"):
        log = (base / f"log/11_score.1.{element}.log").read_text()
        assert "espnet_prune decode" in log and f"--part {element}/2" in log
    assert len(read_map(base / "l0/decode/test/joint/hyp", empty_values=True)) == 16
    assert "espnet_prune decode" in (base / "log/11_score.2.log").read_text()
    assert "espnet_prune score" in (base / "log/11_score.3.log").read_text()
