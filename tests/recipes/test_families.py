"""Every kind of encoder through the stages: trained, pruned, cut, finetuned, decoded."""

import contextlib
import json

import mini_recipe
import pytest
import yaml
from mini_recipe import SHORT, change
from tiny_encoders import ENCODERS

from espnet_prune.models import families

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
SYSTEMS = {"systems": {"l0": {"method": "l0_distill", "target": 0.4, "seed": 3}}}
OPTIONS = {"conformer": {"interctc_layer_idx": [1], "interctc_use_conditioning": True}}
FIRST = "e_branchformer"  # the others take as long, and differ in nothing but their sites
EACH = [name if name == FIRST else pytest.param(name, marks=pytest.mark.slow) for name in ENCODERS]


@pytest.mark.parametrize("family", EACH)
def test_stages_six_to_eleven(family, tmp_path, repository):
    from espnet_prune import cli
    from espnet_prune.surgery import load

    (record,) = [each for each in families() if each.name == family]
    mini_recipe.write_recipe(tmp_path, repository)
    for name in ("teacher", "prune", "finetune"):
        change(tmp_path / f"conf/{name}.yaml", **SHORT)
    conf = {**ENCODERS[family], **OPTIONS.get(family, {})}
    change(tmp_path / "conf/teacher.yaml", encoder=record.stock_choice, encoder_conf=conf)
    (tmp_path / "conf/systems.yaml").write_text(yaml.safe_dump(SYSTEMS))
    for main in ("collect_stats", "train_teacher", "prune", "cut", "finetune"):
        mini_recipe.run_here(tmp_path, main)
    record_of_cut = json.loads((tmp_path / "exp/l0/system.json").read_text())
    assert abs(record_of_cut["sparsity"]["value"] - 0.4) <= 0.02
    assert record_of_cut["masked_equals_cut"]["max_difference"] <= 1e-4
    model = load(tmp_path / "exp/l0/model")
    assert type(model.encoder).__name__.startswith("Pruned")
    decode = ["decode", "--model", "exp/l0/model", "--data", "dump/dev", "--out", "exp/l0/decode"]
    (tmp_path / "conf/decode.yaml").write_text("modes: [greedy, joint]\nbeam_size: 2\n")
    with contextlib.chdir(tmp_path):
        assert not cli.run([*decode, "--config", "conf/decode.yaml"])
    lines = (tmp_path / "exp/l0/decode/joint/hyp").read_text().splitlines()
    assert len(lines) == 6


@pytest.mark.parametrize(
    "name", ["transformer", "branchformer", "e_branchformer", "multiconvformer"]
)
def test_the_recipes_configurations_are_known_as_they_are_and_in_debug(name, repository):
    from espnet_prune.config import load_yaml, merge
    from espnet_prune.models.espnet.known import check_model
    from espnet_prune.train.options import check_training_config
    from espnet_prune.train.teacher_task import TeacherTask

    config = load_yaml(repository / f"egs/librispeech_100/l0_conformer1/conf/{name}.yaml")
    debug = load_yaml(repository / "conf/debug/overrides/teacher.yaml")
    for each in (config, merge(config, debug)):
        checked = check_training_config(TeacherTask, each, name)
        assert check_model(checked, name).name == name
