"""The hub's folder: it loads and transcribes by itself; its card has what was recorded, no more."""

import shutil

import numpy
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard

from espnet_prune.cli import main
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.recogniser import open_recogniser
from espnet_prune.io_atomic import read_json, write_json
from espnet_prune.surgery import load

pytestmark = pytest.mark.timeout(300)
SCORE = {"schema": 1, "errors": 52, "words": 1000, "wer": 5.2, "ci95": [4.1, 6.4]}


@pytest.fixture
def measured(system, tmp_path):
    """A copy of the system in an experiment, with scores, a profile, a teacher and a report."""
    experiment = tmp_path / "exp/base"
    shutil.copytree(system, experiment / "half")
    record = read_json(experiment / "half/system.json")
    sparsity = {"value": 0.5, "kept": 500, "total": 1000, "measure": "parameters"}
    params = {"encoder": {"kept": 510, "dense": 1010}, "total": {"kept": 700, "dense": 1200}}
    commands = [f"python -m x --out {experiment.resolve()}/half"]
    extra = {"sparsity": sparsity, "params": params, "commands": commands}
    write_json(experiment / "half/system.json", {**record, **extra})
    score = {**SCORE, "p_vs_teacher": 0.031}
    write_json(experiment / "half/decode/test/greedy/score.json", score)
    profile = {
        "schema": 1,
        "macs_per_second": 1e6,
        "rtf": {"encoder": 0.01, "ctc_greedy": 0.02, "threads": 1, "batch": 1},
        "speedup": {"encoder": 1.9, "ctc_greedy": 1.7, "predicted": 2.0},
    }
    write_json(experiment / "half/profile.json", profile)
    write_json(experiment / "teacher/system.json", {"schema": 1, "name": "teacher"})
    write_json(experiment / "teacher/decode/test/greedy/score.json", {**SCORE, "wer": 4.9})
    write_json(experiment / "report/report.json", {"schema": 1, "corpus": "Toy words"})
    return experiment / "half"


def test_the_card_has_what_was_recorded(measured, tmp_path):
    out = tmp_path / "hub"
    options = ["--license", "apache-2.0", "--language", "en", "--dataset", "someone/toy"]
    arguments = ["--system", str(measured), "--out", str(out), *options]
    assert main(["hub_folder", *arguments]) == 0
    card = ModelCard.load(out / "README.md")
    assert (card.data.license, card.data.language) == ("apache-2.0", ["en"])
    assert card.data.datasets == ["someone/toy"] and card.data.metrics == ["wer"]
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("wer", 5.2)
    assert (result.dataset_type, result.dataset_split) == ("someone/toy", "test")
    for text in (
        "| test/greedy | 5.20 | 4.10 to 6.40 | 1,000 | 0.031 | 4.90 |",
        "50.00% of 1,000 prunable parameters, of which 500 are left",
        "| encoder | 510 | 1,010 |",
        "| encoder | 0.0100 | 1.90 |",
        "| greedy | 0.0200 | 1.70 |",
        "1 thread, batch 1; the multiply-accumulates alone predict 2.00",
        "![units kept by block and kind](structure.png)",
        "python -m x --out exp/base/half",
    ):
        assert text in card.content
    texts = [(out / name).read_text() for name in ("README.md", "results.json", "model.json")]
    assert str(tmp_path) not in "".join(texts)
    load(out)
    assert (out / "structure.png").stat().st_size > 0


def test_what_was_not_recorded_is_left_out(system, tmp_path):
    out = tmp_path / "hub"
    assert main(["hub_folder", "--system", str(system), "--out", str(out)]) == 0
    card = ModelCard.load(out / "README.md")
    for key in ("license", "language", "datasets", "metrics", "eval_results"):
        assert getattr(card.data, key) is None
    for heading in ("Word error rate", "Size", "Speed"):
        assert f"## {heading}" not in card.content
    assert "not run" not in card.content.split("## How it was made")[0]


def test_the_folder_loads_and_transcribes(system, tmp_path, capsys):
    out = tmp_path / "hub"
    assert main(["hub_folder", "--system", str(system), "--out", str(out)]) == 0
    own, found = load(system / "model").state_dict(), load(out).state_dict()
    assert all(torch.equal(found[name], value) for name, value in own.items())
    samples = numpy.random.default_rng(0).normal(0, 3000, 16000).astype(numpy.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    capsys.readouterr()
    arguments = ["--model", str(out), "--mode", "greedy", str(tmp_path / "a.wav")]
    assert main(["transcribe", *arguments]) == 0
    recogniser = open_recogniser(system / "model", DecodeConfig())
    text = capsys.readouterr().out.rstrip("\n").split("\t")[1]
    assert text == recogniser.transcribe(samples, "greedy") != ""


def test_a_system_without_a_model_is_named(tmp_path, capsys):
    assert main(["hub_folder", "--system", str(tmp_path), "--out", str(tmp_path / "hub")]) == 2
    assert "run stages 8 to 10" in capsys.readouterr().err


def test_a_folder_of_another_system_keeps_nothing_of_it(system, tmp_path):
    whole = shutil.copytree(system, tmp_path / "whole")
    (whole / "plan.json").unlink()
    out = tmp_path / "hub"
    for folder in (system, whole):
        assert main(["hub_folder", "--system", str(folder), "--out", str(out)]) == 0
        (out / "notes.txt").write_text("mine")
    assert not (out / "plan.json").exists() and not (out / "structure.png").exists()
    assert (out / "notes.txt").exists() and "structure.png" not in (out / "README.md").read_text()


def test_a_folder_that_this_command_did_not_make_loses_nothing(system, tmp_path):
    whole = shutil.copytree(system, tmp_path / "whole")
    (whole / "plan.json").unlink()
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/plan.json").write_text("mine")
    assert main(["hub_folder", "--system", str(whole), "--out", str(tmp_path / "hub")]) == 0
    assert (tmp_path / "hub/plan.json").read_text() == "mine"


def test_a_damaged_plan_or_a_file_in_the_way_leaves_nothing_half(system, tmp_path, capsys):
    damaged = shutil.copytree(system, tmp_path / "damaged")
    (damaged / "plan.json").write_text("{}")
    assert main(["hub_folder", "--system", str(damaged), "--out", str(tmp_path / "hub")]) == 2
    assert "plan.json" in capsys.readouterr().err and not (tmp_path / "hub").exists()
    (tmp_path / "hub").write_text("mine")
    assert main(["hub_folder", "--system", str(system), "--out", str(tmp_path / "hub")]) == 2
    assert "is a file; a folder was expected" in capsys.readouterr().err
