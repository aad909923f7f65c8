"""The driver through all fourteen stages on noise: every stage's product, and idempotence."""

import json
import subprocess
from pathlib import Path

import mini_recipe
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def drive(repository: Path, folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Runs the driver over the folder's configurations."""
    command = [*mini_recipe.driver_command(folder, repository), *options]
    environment = {**mini_recipe.environment(), "ESPNET_PRUNE_CURRENT_ENV": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, repository) -> tuple[Path, str]:
    """A whole run, and what it printed."""
    folder = tmp_path_factory.mktemp("recipe")
    mini_recipe.write_whole_recipe(folder, repository)
    done = drive(repository, folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return folder, done.stdout


def test_every_stage_leaves_its_product(experiment):
    folder, printed = experiment
    base = folder / "exp/base"
    report = json.loads((base / "report/report.json").read_text())
    assert [s["name"] for s in report["systems"]] == ["teacher", "l0", "magnitude"]
    for system in report["systems"]:
        assert set(system["wer"]) == {"test/greedy", "test/joint"}
        assert system["rtf"]["threads"] == 1 and system["macs_per_second"] > 0
        assert system["train_seconds"] > 0
    for name in ("l0", "magnitude"):
        record = json.loads((base / name / "system.json").read_text())
        assert abs(record["sparsity"]["value"] - 0.4) <= 0.005
        assert record["masked_equals_cut"]["max_difference"] <= 1e-4
        assert (base / f"pack/{name}.zip").stat().st_size > 0
    counts = [
        sum(json.loads((base / name / "system.json").read_text())["updates"].values())
        for name in ("l0", "magnitude")
    ]
    assert counts[0] == counts[1]
    assert "index.html" in printed


def test_predicted_speed_is_that_of_the_counted_macs(experiment):
    """MACs of the cut model by torch's counter equal the analytic budget."""
    from espnet_prune.budget import Budget
    from espnet_prune.score.profile import encoder_macs
    from espnet_prune.surgery import load, plan_of, sites_of

    base = experiment[0] / "exp/base"
    dense, small = load(base / "teacher/model"), load(base / "l0/model")
    site_map = sites_of(dense, 1.0)
    budget = Budget(site_map, list(site_map.sites), "macs")
    kept = {name: len(site.kept) for name, site in plan_of(small).sites.items()}
    assert encoder_macs(small, 1.0) == budget.count(kept)
    assert encoder_macs(dense, 1.0) == budget.prunable


def test_the_same_command_again_does_nothing_anew(experiment, repository):
    folder, _ = experiment
    weights = folder / "exp/base/l0/model/model.safetensors"
    before = weights.stat().st_mtime_ns
    done = drive(repository, folder, "--stage", "5", "--stop_stage", "11")
    assert done.returncode == 0, done.stderr[-3000:]
    assert weights.stat().st_mtime_ns == before


def test_a_changed_configuration_is_named_instead_of_reused(experiment, repository):
    folder, _ = experiment
    path = folder / "conf/finetune.yaml"
    text = path.read_text()
    path.write_text(text.replace("max_epoch: 3", "max_epoch: 5"))
    done = drive(repository, folder, "--stage", "10", "--stop_stage", "10")
    path.write_text(text)
    assert done.returncode != 0
    assert "max_epoch: 3 -> 5" in done.stdout + done.stderr
