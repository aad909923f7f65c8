"""Self-pinching through the mains of the stages: pruned, cut, finetuned or not, on noise."""

import json
from pathlib import Path

import mini_recipe
import pytest
import torch

from espnet_prune.surgery import load
from espnet_prune.surgery.sparse import count_zeroed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SYSTEMS = """\
systems:
  one_pass:
    {method: self_pinching, target: 0.4, options: {pinching: {epochs_from_finetuning: 3}}}
  weights:
    method: self_pinching_weights
    target: 0.5
    options: {pinching: {epochs_from_finetuning: 1, controller: {kind: lagrangian}, distill: true}}
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, repository) -> Path:
    """Both systems through all stages."""
    folder = tmp_path_factory.mktemp("pinching")
    mini_recipe.write_recipe(folder, repository)
    (folder / "conf/systems.yaml").write_text(SYSTEMS)
    for main in ("collect_stats", "train_teacher"):
        mini_recipe.run(folder, main)
    for system in ("one_pass", "weights"):
        for main in ("prune", "cut", "finetune"):
            mini_recipe.run(folder, main, system)
    return folder / "exp"


def record_of(folder: Path) -> dict:
    return json.loads((folder / "system.json").read_text())


@pytest.mark.parametrize("name, updates", [("one_pass", (24, 0)), ("weights", (16, 8))])
def test_every_system_reaches_its_target_in_the_same_number_of_updates(experiment, name, updates):
    record = record_of(experiment / name)
    assert record["sparsity"]["value"] == pytest.approx(record["target"], abs=0.005)
    assert tuple(record["updates"][stage] for stage in ("prune", "finetune")) == updates
    assert record["masked_equals_cut"]["max_difference"] <= 1e-4


def test_units_are_really_gone(experiment):
    record = record_of(experiment / "one_pass")
    model = load(experiment / "one_pass/model")
    size = sum(p.numel() for p in model.encoder.parameters())
    assert size == record["params"]["encoder"]["kept"] < record["params"]["encoder"]["dense"]
    assert (experiment / "one_pass/plan.json").exists()


def test_the_one_pass_s_model_is_its_cut(experiment):
    one, other = (load(experiment / "one_pass" / name).state_dict() for name in ("cut", "model"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_single_weights_stay_zero_through_finetuning_and_the_file_is_smaller(experiment):
    record = record_of(experiment / "weights")
    cut, model = (load(experiment / "weights" / name) for name in ("cut", "model"))
    zeroed = record["sparsity"]["total"] - record["sparsity"]["kept"]
    assert count_zeroed(cut) == count_zeroed(model) == zeroed
    assert any(not torch.equal(v, model.state_dict()[k]) for k, v in cut.state_dict().items())
    params = record["params"]["encoder"]
    assert params["dense"] - params["kept"] == zeroed
    assert not (experiment / "weights/plan.json").exists()
    assert 0 < record["weights_bytes"]["kept"]
