"""What a recipe costs: the arithmetic by hand, and a tiny recipe measured."""

import json

import mini_recipe
import pytest

from espnet_prune.cli import main
from espnet_prune.train.run_cost import Corpus, Schedule, Step, cost, record, table

HOUR_SAMPLES = 3600 * 16000
# Two seconds a batch of a tenth of an hour, half a second of validation, a second an update.
STEP = Step(
    HOUR_SAMPLES // 10, 2.0, 0.5, 1.0, peak_bytes=3 << 20, weight_bytes=100, optimizer_bytes=7
)


def test_a_training_of_whole_passes():
    corpus = Corpus(train_hours=8, valid_hours=1, speed_factors=(0.5, 1.0, 2.0))
    plan = Schedule(HOUR_SAMPLES, max_epoch=3, accum_grad=4, keep_nbest_models=5)
    row = cost("6 teacher", STEP, plan, corpus, runs=2)
    assert corpus.passed_hours == 8 * (2 + 1 + 0.5)
    assert row.batches == 3 * 28  # of an hour each
    assert row.step_seconds == pytest.approx(20)
    assert row.hours * 3600 == pytest.approx(84 * 20 + 84 / 4 * 1 + 3 * 10 * 0.5)
    assert row.disk_bytes == 2 * (10 * 100 + 7)


def test_devices_share_a_batch_and_the_validation():
    plan = Schedule(HOUR_SAMPLES, max_epoch=2, num_iters_per_epoch=30)
    corpus = Corpus(train_hours=8, valid_hours=1)
    row = cost("8 prune", STEP, plan, corpus, processes=4)
    assert row.batches == 60 and row.step_seconds == pytest.approx(5)
    assert row.hours * 3600 == pytest.approx(60 * 5 + 60 * 1 + 2 * 10 / 4 * 0.5)


def test_the_table_sums_all_trainings():
    corpus = Corpus(train_hours=1, valid_hours=0, speed_factors=(0.5, 1.0))
    plan = Schedule(HOUR_SAMPLES, max_epoch=1, num_iters_per_epoch=180)
    rows = [cost("8 prune", STEP, plan, corpus, runs=3)]
    made = record(rows, corpus, {"device": "x", "devices": 4})
    assert made["hours"] == pytest.approx(3 * 180 * 21 / 3600)
    assert made["device_hours"] == pytest.approx(4 * made["hours"])
    assert "| 8 prune | 180 | 20.00 | 1.05 | 3 | 3.15 |" in table(rows)


@pytest.fixture
def conf(tmp_path, repository):
    mini_recipe.write_recipe(tmp_path, repository)
    return tmp_path / "conf"


def words(conf, *more):
    given = ["--train_hours", "0.01", "--valid_hours", "0.002", "--vocab_size", "12"]
    return ["--conf_dir", str(conf), *given, "--utterance_seconds", "0.5", "--updates", "1", *more]


def test_a_recipe_is_measured_on_noise(conf, tmp_path, capsys):
    out = tmp_path / "cost.json"
    options = words(conf, "--out", str(out), "--processor_seconds", "--speed_factors", "0.9 1.0")
    assert main(["estimate_cost", *options]) == 0
    made = json.loads(out.read_text())
    stages = {row["stage"]: row for row in made["stages"]}
    # l0 learns masks; magnitude finetunes for the epochs of both
    names = ["6 teacher", "8 prune, 3 epochs", "10 finetune, 3 epochs", "10 finetune, 6 epochs"]
    assert list(stages) == names
    assert [row["batches"] for row in stages.values()] == [12, 12, 12, 24]
    assert made["clock"] == "processor" and made["measured_utterances"] == 1
    six, three = stages[names[3]]["hours"], stages[names[2]]["hours"]
    assert six == pytest.approx(2 * three) and three > 0
    assert stages["8 prune, 3 epochs"]["step_seconds"] > 0
    # gates and multipliers beside the teacher's weights; less where units were cut
    weights = [row["disk_bytes"] for row in stages.values()]
    assert weights[0] < weights[1] and weights[2] == weights[3] < weights[0]
    printed = capsys.readouterr().out
    assert printed.startswith("1 x ") and "| all |" in printed


def test_the_uncompressed_model_is_finetuned_whole(conf, tmp_path):
    (conf / "systems.yaml").write_text("systems: {unpruned: {method: unpruned, target: 0}}\n")
    out = tmp_path / "cost.json"
    assert main(["estimate_cost", *words(conf, "--out", str(out))]) == 0
    teacher, finetune = json.loads(out.read_text())["stages"]
    assert finetune["stage"].startswith("10 finetune")
    assert finetune["disk_bytes"] >= teacher["disk_bytes"]  # with what distillation maps by


def test_recipes_of_pretrained_models_are_refused_by_name(conf, capsys):
    (conf / "teacher.yaml").write_text("encoder: whisper\nmax_epoch: 1\n")
    assert main(["estimate_cost", *words(conf)]) == 2
    assert "encoder: whisper: only recipes that train a Conformer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--ngpu", "1", "--processor_seconds"], "--processor_seconds: a GPU's time"),
        (["--updates", "0"], "--updates"),
        (["--speed_factors", "0"], "--speed_factors"),
        (["--speed_factors", "0.9,1.0"], "--speed_factors: '0.9,1.0' was expected as numbers"),
        (["--utterances=-3"], "--utterances: -3 is out of range"),
        (["--ngpu=-1"], "--ngpu: -1 is out of range"),
    ],
)
def test_wrong_options_are_named(conf, capsys, option, message):
    assert main(["estimate_cost", *words(conf, *option)]) == 2
    assert message in capsys.readouterr().err
