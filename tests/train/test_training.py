"""What a training is started with, and that it goes on with nothing else."""

import json
import shutil
import subprocess
import sys

import mini_recipe
import pytest
import yaml

from espnet_prune import job_control
from espnet_prune.errors import ConfigError, DataError, EnvironmentProblem, TrainingError
from espnet_prune.record import file_digest
from espnet_prune.train import precision
from espnet_prune.train.system_config import Folders
from espnet_prune.train.training import averaged, run_training


class Task:
    """Stands for an ESPnet task; leaves a checkpoint, as one that was killed later does."""

    commands: list = []
    trainer = object

    @classmethod
    def main(cls, cmd):
        options = dict(zip(cmd[::2], cmd[1::2], strict=True))
        cls.commands.append(options)
        (cls.folder / "checkpoint.pth").touch()


@pytest.fixture
def folder(tmp_path, repository):
    """A mini recipe with the statistics' shapes."""
    folder = tmp_path / "work"
    mini_recipe.write_recipe(folder, repository)
    for name in ("train", "valid"):
        shapes = folder / "exp/stats" / name / "speech_shape"
        shapes.parent.mkdir(parents=True)
        shapes.write_text("u 1\n")
    return folder


def folders_of(folder) -> Folders:
    return Folders(*(folder / n for n in ("dump/train", "dump/dev", "data/tokens", "exp/stats")))


def train(folder, begun_by=None, **changes):
    """Starts the stand-in; returns the configuration that it got."""
    Task.folder = out = folder / "exp/l0/prune"
    config = {"max_epoch": 3, "optim_conf": {"lr": 0.001}, "normalize": "global_mvn"}
    run_training(Task, {**config, **changes}, folders_of(folder), out, begun_by=begun_by)
    return yaml.safe_load((out / "train_config.yaml").read_text())


@pytest.mark.parametrize(
    "wanted, epochs, expected", [(4, 2, 2), (2, 4, 2), ([1, 5, 10], 3, [1, 3]), ([10], 40, [10])]
)
def test_no_more_epochs_are_averaged_than_there_are(wanted, epochs, expected):
    assert averaged(wanted, epochs) == expected


def test_the_resolved_configuration_holds_everything(folder):
    config = train(folder)
    assert config["max_epoch"] == 3 and config["resume"] is True
    assert config["normalize_conf"]["stats_file"] == str(
        (folder / "exp/stats/train/feats_stats.npz").resolve()
    )
    assert config["token_type"] == "char"
    assert Task.commands[-1]["--ngpu"] == "0"


@pytest.mark.parametrize(
    ("has_it", "said"),
    [(True, "use_amp: on this CPU's bfloat16"), (False, "bfloat16 of its own, so this trains in")],
)
def test_mixed_precision_on_the_cpu(folder, caplog, monkeypatch, has_it, said):
    """ESPnet's own is not asked for; a training begun on a GPU goes on on a CPU."""
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: has_it)
    with caplog.at_level("INFO"):
        assert train(folder, use_amp=True)["use_amp"] is False
    assert said in caplog.text
    assert json.loads((folder / "exp/l0/prune/.begun.json").read_text())["config"]["use_amp"]


def test_the_same_command_goes_on(folder):
    assert train(folder) == train(folder)


def test_another_configuration_is_an_error_that_names_the_keys(folder):
    train(folder)
    with pytest.raises(ConfigError, match=r"optim_conf.lr: 0.001 -> 0.1.*remove this folder"):
        train(folder, optim_conf={"lr": 0.1})
    config = yaml.safe_load((folder / "exp/l0/prune/train_config.yaml").read_text())
    assert config["optim_conf"]["lr"] == 0.001, "the refused configuration was written"


def test_a_training_without_a_checkpoint_can_be_put_right(folder):
    train(folder)
    (folder / "exp/l0/prune/checkpoint.pth").unlink()
    assert train(folder, optim_conf={"lr": 0.1})["optim_conf"]["lr"] == 0.1
    with pytest.raises(ConfigError, match="optim_conf.lr: 0.1 -> 0.001"):
        train(folder)


def test_a_moved_experiment_goes_on(folder):
    train(folder)
    moved = folder.parent / "moved"
    shutil.move(folder, moved)
    assert train(moved)["token_list"] == str(moved / "data/tokens/tokens.txt")


def test_what_a_recipe_says_is_kept(folder):
    config = train(folder, normalize_conf={"norm_vars": False}, log_interval=7)
    assert config["normalize_conf"]["norm_vars"] is False
    assert config["normalize_conf"]["stats_file"].endswith("feats_stats.npz")
    assert config["log_interval"] == 7 and config["num_att_plot"] == 0
    assert config["use_wandb"] is False


def test_it_goes_on_from_the_same_models_tokens_and_statistics_alone(folder):
    weights = folder / "weights"
    statistics = folder / "exp/stats/train/feats_stats.npz"
    for path in (weights, statistics):
        path.write_text("one")

    def begun_by() -> dict:
        return {"contents of the cut model": file_digest(weights)}

    train(folder, begun_by())
    tokens = folder / "data/tokens/tokens.txt"
    for path, name in ((weights, "the cut model"), (statistics, "statistics"), (tokens, "tokens")):
        before = path.read_text()
        path.write_text("another")
        with pytest.raises(ConfigError, match=f"contents of {name}: '.*remove this folder"):
            train(folder, begun_by())
        path.write_text(before)
    train(folder, begun_by())


@pytest.mark.parametrize(
    ("ngpu", "error", "message"),
    [
        (2, ConfigError, "--ngpu 2: a process trains on one GPU; give 0 or 1"),
        (-1, ConfigError, "--ngpu -1: a process trains on one GPU"),
        (1, EnvironmentProblem, "--ngpu 1: PyTorch sees no GPU here; give --ngpu 0"),
    ],
)
def test_gpus_that_a_process_cannot_have_are_refused(folder, monkeypatch, ngpu, error, message):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    out = folder / "exp/l0/prune"
    with pytest.raises(error, match=message):
        run_training(Task, {"max_epoch": 1}, folders_of(folder), out, ngpu)
    assert not out.exists()


def test_missing_statistics_name_the_stage(folder):
    (folder / "exp/stats/valid/speech_shape").unlink()
    with pytest.raises(DataError, match="speech_shape: no such file; run stage 5"):
        train(folder)


def test_bpe_tokens_bring_their_model(folder):
    path = folder / "data/tokens/tokens.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model": "bpe.model"}))
    assert train(folder)["bpemodel"] == str((folder / "data/tokens/bpe.model").resolve())


def test_a_folder_is_trained_by_one_process_at_a_time(folder, monkeypatch):
    train(folder)
    monkeypatch.setattr(job_control, "LOCK_SECONDS", 0.0)
    lock = folder / "exp/l0/prune" / job_control.LOCK
    code = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); "
    code += "print(flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], **pipes) as holder:
        holder.stdout.readline()
        with pytest.raises(TrainingError, match="exp/l0/prune"):
            train(folder)
    train(folder)
