"""Methods that look at data or change weights, through the mains of the stages, on noise.

The mains are called in this process: ESPnet's import takes longer than all of these stages.
"""

import json
from pathlib import Path

import mini_recipe
import pytest
from mini_recipe import run_here
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SYSTEMS = """\
systems:
  fisher:
    method: fisher
    target: 0.4
    options: {calibration: {utterances: 8}, fisher: {rescale_utterances: 4}}
  depth:
    method: layer_drop
    target: 0.4
    options: {calibration: {utterances: 4}}
    training: {keep_nbest_models: 9}
  folding: {method: folding, target: 0.4}
  nas: {method: nas, target: 0.4, options: {nas: {fractions: [0.25, 0.5, 1]}}}
"""
NAMES = ("fisher", "depth", "folding", "nas")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, repository) -> Path:
    """Every system through all stages."""
    folder = tmp_path_factory.mktemp("alternatives")
    mini_recipe.write_recipe(folder, repository)
    (folder / "conf/systems.yaml").write_text(SYSTEMS)
    run_here(folder, "collect_stats")
    run_here(folder, "train_teacher")
    for system in NAMES:
        for main in ("prune", "cut", "finetune"):
            run_here(folder, main, system)
    return folder / "exp"


def record_of(folder: Path) -> dict:
    return json.loads((folder / "system.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_the_target_is_reached_with_as_many_updates_as_by_the_others(experiment, name):
    record = record_of(experiment / name)
    assert record["sparsity"]["value"] == pytest.approx(record["target"], abs=0.005)
    assert sum(record["updates"].values()) == 24
    assert record["masked_equals_cut"]["max_difference"] <= 1e-4


def test_all_epochs_are_averaged_where_there_are_fewer_than_wanted(experiment):
    assert record_of(experiment / "fisher")["weights"] == "valid.acc.ave_2best.pth"
    assert record_of(experiment / "depth")["weights"] == "valid.acc.ave_6best.pth"


def test_masks_chosen_on_data_are_kept_with_their_time(experiment):
    masks = load_file(experiment / "fisher/prune/masks.safetensors")
    plan = json.loads((experiment / "fisher/plan.json").read_text())["sites"]
    assert {n: m.nonzero()[:, 0].tolist() for n, m in masks.items()} == {
        name: site["kept"] for name, site in plan.items()
    }
    assert record_of(experiment / "fisher")["train_seconds"]["prune"] > 0
