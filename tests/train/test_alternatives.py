"""Methods that look at data or change weights, through the mains of the stages, on noise.

The mains are called in this process: ESPnet's import takes longer than all of these stages.
"""

import json
from pathlib import Path

import mini_recipe
import pytest
from mini_recipe import run_here
from safetensors.torch import load_file

from espnet_prune.surgery import load
from espnet_prune.surgery.rounding import FORMS, nearest, rounded_weights

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
  numerical: {method: numerical, target: 0.4, options: {calibration: {utterances: 4}}}
  acip: {method: acip, target: 0.4, options: {pressure: {growth: 2.0, every: 1}}}
  flexigpt: {method: flexigpt, target: 0.3, options: {calibration: {utterances: 2}}}
  sam:
    method: unpruned
    target: 0.0
    options: {student: {sharpness: {kind: sam}}}
  of_sam: {of: sam, method: uniform_magnitude, target: 0.4, as_cut: true}
  few_bits: {of: folding, bits: 8}
  fewest_bits: {of: folding, bits: 4}
  noise:
    method: unpruned
    target: 0.0
    options:
      student: {quant_noise: {bits: 4}, intermediate_ctc: {blocks: 1}, stochastic_depth: 0.1}
  ranks: {of: folding, method: low_rank, target: 0.3, options: {calibration: {utterances: 4}}}
  nas: {method: nas, target: 0.4, options: {nas: {fractions: [0.25, 0.5, 1]}}}
"""
NAMES = ("fisher", "depth", "folding", "numerical", "nas", "acip", "flexigpt")
LATER = {
    "sam": 24,
    "of_sam": 0,
    "noise": 24,
    "ranks": 24,
    "few_bits": 0,
    "fewest_bits": 0,
}  # updates of each


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, repository) -> Path:
    """Every system through all stages."""
    folder = tmp_path_factory.mktemp("alternatives")
    mini_recipe.write_recipe(folder, repository)
    (folder / "conf/systems.yaml").write_text(SYSTEMS)
    run_here(folder, "collect_stats")
    run_here(folder, "train_teacher")
    for system in (*NAMES, *LATER):
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


@pytest.mark.parametrize("name", LATER)
def test_a_system_may_be_made_of_another_and_stay_as_it_was_cut(experiment, name):
    record = record_of(experiment / name)
    assert record["sparsity"]["value"] == pytest.approx(record["target"], abs=0.005)
    assert sum(record["updates"].values()) == LATER[name]
    if name == "of_sam":
        cut, final = (load_file(experiment / name / f"{part}/model.safetensors")
                      for part in ("cut", "model"))  # fmt: skip
        assert all(value.equal(final[key]) for key, value in cut.items())
        assert record["weights"] == "as cut"
        of = load_file(experiment / "sam/model/model.safetensors")
        assert cut["encoder.after_norm.weight"].equal(of["encoder.after_norm.weight"])


def test_what_was_cut_is_rounded_in_a_row_of_its_own(experiment):
    small, record = experiment / "few_bits", record_of(experiment / "few_bits")
    size = (small / "model/model.safetensors").stat().st_size
    assert record["weights_bytes"]["kept"] == size
    assert size < (experiment / "folding/model/model.safetensors").stat().st_size
    assert record["params"] == record_of(experiment / "folding")["params"]
    assert record["row"]["bits"] == 8
    assert (record["method"], record["target"]) == ("folding", 0.4)  # nothing more is taken out
    model, whole = (load(experiment / name / "model") for name in ("few_bits", "folding"))
    rounded = rounded_weights(model)
    assert rounded and all(each.bits == 8 for each in rounded.values())
    for name in rounded:
        expected, _ = nearest(whole.get_parameter(name), FORMS[8])
        assert model.get_parameter(name).equal(expected)


def test_in_four_bits_it_is_rounded_by_what_layers_hear(experiment):
    model, whole = (load(experiment / name / "model") for name in ("fewest_bits", "folding"))
    scales = rounded_weights(model)
    assert {each.bits for each in scales.values()} == {4}
    solved = [
        name
        for name in scales
        if not model.get_parameter(name).equal(nearest(whole.get_parameter(name), FORMS[4])[0])
    ]
    assert "encoder.embed.out.weight" in solved
    sizes = {n: record_of(experiment / n)["weights_bytes"]["kept"] for n in LATER}
    assert sizes["fewest_bits"] < sizes["few_bits"]


def test_ranks_of_what_units_left_are_counted_of_the_teacher(experiment):
    ranks, folding = record_of(experiment / "ranks"), record_of(experiment / "folding")
    assert ranks["params"]["encoder"]["dense"] == folding["params"]["encoder"]["dense"]
    assert ranks["params"]["encoder"]["kept"] < folding["params"]["encoder"]["kept"]
    plan = json.loads((experiment / "ranks/plan.json").read_text())["sites"]
    assert {"rank", "head"} <= {site["kind"] for site in plan.values()}
