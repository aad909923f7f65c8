"""What a training depends on: its configuration, data folders and tokens."""

from pathlib import Path

import pytest
from system_configs import system_config

from espnet_prune.cli import get_parser, main
from espnet_prune.data.tokens import make_tokens
from espnet_prune.io_atomic import read_json, write_json
from espnet_prune.record import mark_finished
from espnet_prune.train import stages, teacher
from espnet_prune.train.stages import stage_made_by
from espnet_prune.train.system_config import read_config, write_config


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
    Path("config.yaml").write_text("max_epoch: 1\n")
    return tmp_path


DATA = {"train": "dump/train", "valid": "dump/dev", "tokens": "data/tokens", "stats": "exp/stats"}


def words(train: str = "dump/train") -> list[str]:
    folders = {**DATA, "train": train}
    return ["--config", "config.yaml", *(w for k, v in folders.items() for w in (f"--{k}", v))]


def system(row: dict | None = None, train: str = "dump/train", **conf: object) -> list[str]:
    """Configures system ``a``, whose other stages' options are ``conf``; words of its stages."""
    row = row or {"method": "magnitude", "target": 0.5}
    conf = {"num_iters_per_epoch": 3, "max_epoch": 1, **conf}
    config = system_config(row, Path("exp"), conf, conf, {**DATA, "train": train})
    write_config(Path("exp/a"), config)
    return ["--system", "exp/a"]


def done(stage: str) -> None:
    """Marks a stage of system ``a`` as finished by its present configuration."""
    mark_finished(f"exp/a/{stage}", stage_made_by(stage, Path("exp/a"), read_config(Path("exp/a"))))


@pytest.mark.parametrize("verb", ["prune", "finetune"])
def test_other_tokens_than_the_teachers_are_refused_though_as_many(folder, capsys, verb):
    Path("text").write_text("u1 AB\nu2 DA\n")
    make_tokens(Path("text"), Path("data/tokens"), "char", 0)
    assert main([verb, *system()]) == 2
    error = capsys.readouterr().err
    assert "data/tokens/tokens.txt: its 7 tokens are not the 7 that exp/teacher/model" in error
    assert "line 5: 'D', there 'C'" in error and "another --tag" in error
    assert not Path("exp/a", verb).exists()


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
        assert main(["prune", *system()]) == 2
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


def test_a_system_of_other_data_is_refused(folder, capsys):
    command = ["prune", *system()]
    done("prune")
    assert main(command) == 0
    system(train="dump/other")
    assert main(command) == 2
    assert "train: 'dump/train' -> 'dump/other'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "conf", "message"),
    [
        ({"target": 0.6}, {}, "target: 0.5 -> 0.6"),
        ({"options": {"sites": ["head"]}}, {}, "prune.method.sites: "),
        ({}, {"max_epoch": 2}, "prune.training.max_epoch: 1 -> 2"),
    ],
)
def test_a_changed_configuration_is_refused_by_its_keys(folder, capsys, row, conf, message):
    command = ["prune", *system()]
    done("prune")
    system({"method": "magnitude", "target": 0.5, **row}, **conf)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error and "another --tag" in error


def test_a_finetuning_of_another_cut_is_refused(folder, capsys):
    cut = Path("exp/a/cut/model.safetensors")
    cut.parent.mkdir(parents=True)
    cut.write_text("one")
    command = ["finetune", *system()]
    done("finetune")
    assert main(command) == 0
    cut.write_text("another")
    assert main(command) == 2
    assert "contents of the cut model: '" in capsys.readouterr().err


def test_a_cut_of_another_pruning_is_not_finetuned(folder, capsys, monkeypatch):
    begun = []
    monkeypatch.setattr(stages, "finetune", lambda out, *unused: begun.append(out))
    command = ["finetune", *system()]
    assert main(command) == 2
    assert "exp/a/cut/.done.json: no such file; run stage 9 (cut) first" in capsys.readouterr().err
    pruned = stage_made_by("prune", Path("exp/a"), read_config(Path("exp/a")))
    mark_finished("exp/a/cut", {"prune": pruned})
    system({"method": "magnitude", "target": 0.6})
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "exp/a/cut: " in error and "prune.target: 0.5 -> 0.6" in error and not begun
    system()
    assert main(command) == 0
    assert begun == [Path("exp/a")]


@pytest.mark.parametrize("place", ["system", "recipe"])
def test_masks_by_scores_that_were_measured_anew_are_refused(folder, capsys, place):
    options = {"importance": {"file": "scores.safetensors"}}
    row = {"method": "importance", "target": 0.5}
    if place == "system":
        command = ["prune", *system({**row, "options": options})]
    else:
        command = ["prune", *system(row, method=options)]
    Path("scores.safetensors").write_text("one")
    done("prune")
    assert main(command) == 0
    Path("scores.safetensors").write_text("another")
    assert main(command) == 2
    assert "contents of scores.safetensors: '" in capsys.readouterr().err


def configure(*more: str) -> int:
    files = [
        word
        for name in ("systems", "prune", "finetune")
        for word in ("--config", name, f"{name}.yaml")
    ]
    data = [word for key, value in DATA.items() for word in (f"--{key}", value)]
    return main(["configure", "--out", "exp", *files, *data, "--systems", *more])


@pytest.fixture
def recipe(folder):
    """The recipe's files of system ``a``, and one that takes a rung of it."""
    for name in ("prune", "finetune"):
        Path(f"{name}.yaml").write_text("num_iters_per_epoch: 3\nmax_epoch: 4\n")
    Path("systems.yaml").write_text(
        "systems:\n  a: {method: l0_distill, target: 0.5, ladder: [0.3]}\n"
        "  b: {taken_from: a, target: 0.3}\n"
    )


def test_systems_are_configured_and_named_once(recipe, capsys, monkeypatch):
    assert configure("--only", "b", "--compare_with", "a?") == 0
    assert capsys.readouterr().out == "b\nb\n\n\n"
    config = read_config(Path("exp/a"))
    assert (config.method, config.ladder, config.folders.train) == (
        "l0_distill",
        (0.3,),
        Path("dump/train"),
    )
    assert read_config(Path("exp/b")).taken_from == "a"
    monkeypatch.setattr("espnet_prune.train.resolve.resolve", None)  # nothing changed
    assert configure() == 0
    assert capsys.readouterr().out == "a b\nb\n\n\n"


def test_overrides_win_and_a_name_that_nothing_reads_is_refused(recipe, capsys):
    over = Path("over")
    over.mkdir()
    (over / "prune.yaml").write_text("max_epoch: 2\n")
    assert configure("--over", "over") == 0
    config = read_config(Path("exp/a"))
    assert (config.prune.updates, config.finetune.updates) == (6, 12)
    (over / "tune.yaml").write_text("max_epoch: 2\n")
    assert configure("--over", "over") == 2
    assert "over/tune.yaml: the recipe has no configuration 'tune'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("systems.yaml", "systems: [a]\n", "systems.yaml: systems: a mapping of keys"),
        ("systems.yaml", "systems: {a: }\n", "systems.yaml: a: a mapping of keys was expected"),
        ("systems.yaml", "system: {a: {}}\n", "systems.yaml: expected the key 'systems'"),
        ("systems.yaml", "systems: {}\n", "with at least one name"),
        ("prune.yaml", "method: l0_distill\n", "prune.yaml: method: a mapping of keys"),
    ],
)
def test_what_is_no_mapping_is_named(recipe, capsys, file, text, message):
    Path(file).write_text(text)
    assert configure() == 2
    assert message in capsys.readouterr().err
    assert not Path("exp/a").exists()
