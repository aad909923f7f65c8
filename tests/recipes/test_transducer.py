"""A transducer through the stages: trained, pruned, cut, finetuned, decoded."""

import contextlib
import json

import mini_recipe
import pytest
import yaml
from mini_recipe import SHORT, change

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
LOSS = {"best_model_criterion": [["valid", "loss", "min"]]}
TRANSDUCER = {
    "decoder": "transducer",
    "decoder_conf": {"hidden_size": 12, "num_layers": 2},
    "joint_net_conf": {"joint_space_size": 16},
}
OPTIONS = {"decoder": {}}
SYSTEMS = {
    "systems": {"l0": {"method": "l0_distill", "target": 0.4, "seed": 3, "options": OPTIONS}}
}
MODES = {0.3: ["greedy", "ctc_prefix", "joint", "joint_int8"], 0.0: ["greedy", "joint"]}


@pytest.fixture
def recipe(tmp_path, repository):
    mini_recipe.write_recipe(tmp_path, repository)
    for name in ("teacher", "prune", "finetune"):
        change(tmp_path / f"conf/{name}.yaml", **SHORT, **LOSS)
    (tmp_path / "conf/systems.yaml").write_text(yaml.safe_dump(SYSTEMS))
    return tmp_path


def run(folder, *words: str) -> None:
    from espnet_prune import cli

    with contextlib.chdir(folder):
        assert not cli.run(list(words))


@pytest.mark.parametrize("ctc_weight", [0.3, pytest.param(0.0, marks=pytest.mark.slow)])
def test_stages_six_to_eleven(ctc_weight, recipe, capsys):
    from espnet_prune.surgery import load, plan_of

    conf = {"ctc_weight": ctc_weight, "report_cer": False, "report_wer": False}
    change(recipe / "conf/teacher.yaml", **TRANSDUCER, model_conf=conf)
    for main in ("collect_stats", "train_teacher", "prune", "cut", "finetune"):
        mini_recipe.run_here(recipe, main)
    record = json.loads((recipe / "exp/l0/system.json").read_text())
    assert abs(record["sparsity"]["value"] - 0.4) <= 0.02
    assert record["masked_equals_cut"]["max_difference"] <= 1e-4
    gone = {part: size["dense"] - size["kept"] for part, size in record["params"].items()}
    # with the decoder's are the joint network's
    assert gone["encoder"] + gone["decoder"] == gone["total"]
    model = load(recipe / "exp/l0/model")
    assert type(model.encoder).__name__.startswith("Pruned") and model.use_transducer_decoder
    units = plan_of(model).sites["decoder.joint.units"]
    assert model.joint_network.lin_out.in_features == len(units.kept) <= units.units == 16
    search = {"modes": MODES[ctc_weight], "beam_size": 2}
    (recipe / "conf/decode.yaml").write_text(yaml.safe_dump(search))
    decode = ["--model", "exp/l0/model", "--data", "dump/dev", "--out", "exp/l0/decode"]
    run(recipe, "decode", *decode, "--config", "conf/decode.yaml")
    for mode in MODES[ctc_weight]:
        texts = (recipe / f"exp/l0/decode/{mode}/hyp").read_text()
        assert len(texts.splitlines()) == 6 and "<" not in texts
    capsys.readouterr()
    audio = next((recipe / "dump/dev/audio").glob("*.flac"))
    run(recipe, "transcribe", "--model", "exp/l0/model", str(audio))
    assert capsys.readouterr().out.startswith(f"{audio}\t")
    if not ctc_weight:
        check_sensitivity(recipe)


def check_sensitivity(recipe) -> None:
    """Without CTC the words are those of the greedy search, which masks reach."""
    words = ["--model", "exp/teacher/model", "--data", "dump/dev", "--out", "exp/sensitivity"]
    words += ["--utterances", "1", "--fractions", "1.0", "--decoder"]
    run(recipe, "sensitivity", *words, "--sites", "feed_forward_unit")
    found = json.loads((recipe / "exp/sensitivity/sensitivity.json").read_text())["sites"]
    changes = {name: site["removals"][0]["loss_change"] for name, site in found.items()}
    assert changes["decoder.prediction.0.units"] and changes["decoder.joint.units"]
