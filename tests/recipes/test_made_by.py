"""What a training depends on: data folders and tokens, too; records of earlier versions hold."""

import json
from pathlib import Path

import pytest

from espnet_prune.cli import get_parser, main
from espnet_prune.data.tokens import make_tokens
from espnet_prune.io_atomic import read_json, write_json
from espnet_prune.provenance import file_digest
from espnet_prune.stage import MARK, mark_finished
from espnet_prune.train import system_stage, teacher


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A teacher's folder as its training leaves it, with weights that nothing here loads."""
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("u1 AB\nu2 CA\n")
    tokens = make_tokens(Path("text"), Path("data/tokens"), "char", 0)
    model = Path("exp/teacher/model")
    model.mkdir(parents=True)
    (model / "model.safetensors").write_text("weights")
    config = {"token_list": tokens, "bpemodel": None}
    write_json(model / "model.json", {"schema": 1, "kind": "espnet_asr", "config": config})
    Path("systems.yaml").write_text("systems: {a: {method: magnitude, target: 0.5}}\n")
    Path("config.yaml").write_text("max_epoch: 1\n")
    return tmp_path


def words(train: str = "dump/train") -> list[str]:
    folders = {"train": train, "valid": "dump/dev", "tokens": "data/tokens", "stats": "exp/stats"}
    return ["--config", "config.yaml", *(w for k, v in folders.items() for w in (f"--{k}", v))]


def of_system(*train: str) -> list[str]:
    given = ["--systems", "systems.yaml", "--system", "a", "--teacher", "exp/teacher"]
    return [*words(*train), *given, "--out", "exp/a"]


@pytest.mark.parametrize("verb", ["prune", "finetune"])
def test_other_tokens_than_the_teachers_are_refused_though_as_many(folder, capsys, verb):
    Path("text").write_text("u1 AB\nu2 DA\n")
    make_tokens(Path("text"), Path("data/tokens"), "char", 0)
    assert main([verb, *of_system()]) == 2
    error = capsys.readouterr().err
    assert "data/tokens/tokens.txt: its 7 tokens are not the 7 that exp/teacher/model" in error
    assert "line 5: 'D', there 'C'" in error and "another --tag" in error
    assert not Path("exp/a").exists()


def test_another_bpe_model_of_the_same_tokens_is_refused(folder, capsys):
    model = Path("exp/teacher/model/model.json")
    description = read_json(model)
    config = {**description["config"], "bpemodel": "bpe.model"}
    write_json(model, {**description, "config": config})
    (model.parent / "bpe.model").write_text("one")
    record = Path("data/tokens/tokens.json")
    for there, message in (("other", "data/tokens/bpe.model: bpe.model is not"), (None, "none is")):
        if there is not None:
            Path("data/tokens/bpe.model").write_text(there)
        write_json(record, {**read_json(record), "model": there and "bpe.model"})
        assert main(["prune", *of_system()]) == 2
        assert message in capsys.readouterr().err


def test_a_teacher_of_other_tokens_or_data_is_refused(folder, capsys):
    command = [*words(), "--out", "exp/teacher"]
    args = get_parser("train_teacher").parse_args(command)
    mark_finished("exp/teacher", teacher._made_by(args, {"max_epoch": 1}))
    assert main(["train_teacher", *command]) == 0
    assert main(["train_teacher", *words("dump/other"), *command[-2:]]) == 2
    assert "train: 'dump/train' -> 'dump/other'" in capsys.readouterr().err
    Path("text").write_text("u1 AB\nu2 DA\n")
    make_tokens(Path("text"), Path("data/tokens"), "char", 0)
    assert main(["train_teacher", *command]) == 2
    assert "contents of data/tokens" in capsys.readouterr().err


def test_what_earlier_versions_finished_is_taken_as_it_is(folder):
    """Their records name neither the data's folders nor the tokens."""
    mark_finished("exp/teacher", {"max_epoch": 1})
    assert main(["train_teacher", *words(), "--out", "exp/teacher"]) == 0
    weights = file_digest(Path("exp/teacher/model/model.safetensors"))
    teacher = {"folder": "exp/teacher", "weights": weights}
    system = {"method": "magnitude", "target": 0.5}
    made_by = {"config": {"max_epoch": 1}, "system": system, "teacher": teacher}
    mark_finished("exp/a/prune", made_by)
    assert main(["prune", *of_system("dump/other")]) == 0
    assert json.loads(Path("exp/a/prune", MARK).read_text())["config"] == made_by


def test_a_system_of_other_data_is_refused(folder, capsys):
    made_by, _ = system_stage._made_by(get_parser("prune").parse_args(of_system()), "prune")
    mark_finished("exp/a/prune", made_by)
    assert main(["prune", *of_system()]) == 0
    assert main(["prune", *of_system("dump/other")]) == 2
    assert "train: 'dump/train' -> 'dump/other'" in capsys.readouterr().err


def test_a_finetuning_of_another_cut_is_refused(folder, capsys):
    cut = Path("exp/a/cut/model.safetensors")
    cut.parent.mkdir(parents=True)
    cut.write_text("one")
    made_by, _ = system_stage._made_by(get_parser("finetune").parse_args(of_system()), "finetune")
    mark_finished("exp/a/finetune", made_by)
    assert main(["finetune", *of_system()]) == 0
    cut.write_text("another")
    assert main(["finetune", *of_system()]) == 2
    assert "contents of the cut model: '" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["system", "recipe"])
def test_masks_by_scores_that_were_measured_anew_are_refused(folder, capsys, place):
    options = "importance: {file: scores.safetensors}"
    row = "{method: importance, target: 0.5%s}"
    own = f", options: {{{options}}}" if place == "system" else ""
    Path("systems.yaml").write_text(f"systems: {{a: {row % own}}}\n")
    if place == "recipe":
        Path("config.yaml").write_text(f"max_epoch: 1\nmethod: {{{options}}}\n")
    Path("scores.safetensors").write_text("one")
    made_by, _ = system_stage._made_by(get_parser("prune").parse_args(of_system()), "prune")
    mark_finished("exp/a/prune", made_by)
    assert main(["prune", *of_system()]) == 0
    Path("scores.safetensors").write_text("another")
    assert main(["prune", *of_system()]) == 2
    assert "contents of scores.safetensors: '" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("systems.yaml", "systems: [a]\n", "systems.yaml: systems: a mapping of keys"),
        ("systems.yaml", "systems: {a: }\n", "systems.yaml: a: a mapping of keys was expected"),
        ("config.yaml", "method: l0_distill\n", "config.yaml: method: a mapping of keys"),
    ],
)
@pytest.mark.parametrize("verb", ["prune", "finetune"])
def test_what_is_no_mapping_is_named(folder, capsys, verb, file, text, message):
    Path(file).write_text(text)
    assert main([verb, *of_system()]) == 2
    assert message in capsys.readouterr().err
