"""Recipes that a user begins with: a corpus of one's own, and a model of one's own."""

import shutil
import subprocess
from pathlib import Path

import pytest

from espnet_prune.train.recipe import read_recipe
from espnet_prune.train.resolve import resolve

pytestmark = pytest.mark.timeout(300)  # the first waits for the imports
ROOT = Path(__file__).resolve().parents[2]
DATA = dict.fromkeys(("train", "valid", "tokens", "stats"), "folder")


@pytest.fixture
def setup(tmp_path):
    """Calls setup.sh of a copy of what it needs; returns the process."""
    shutil.copytree(ROOT / "egs/TEMPLATE", tmp_path / "egs/TEMPLATE")
    shutil.copytree(ROOT / "conf", tmp_path / "conf")

    def call(*arguments: str) -> subprocess.CompletedProcess:
        program = tmp_path / "egs/TEMPLATE/prune1/setup.sh"
        return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)

    return call


@pytest.mark.parametrize("options", [[], ["--imported"]])
def test_the_recipe_that_is_made_is_read_strictly(options, setup, tmp_path):
    done = setup("mine", *options)
    assert done.returncode == 0, done.stderr
    recipe = tmp_path / "egs/mine/prune1"
    assert (recipe / "run.sh").stat().st_mode & 0o100 and (recipe / "data").is_dir()
    assert f"egs/mine/prune1/run.sh{' --teacher FILE' if options else ''}" in done.stdout
    files = {path.stem: path for path in (recipe / "conf").glob("*.yaml")}
    assert ("teacher" in files) == (not options)
    read = read_recipe(files, None)
    for name in read.systems:
        config = resolve(read, tmp_path / "exp", DATA, name)
        assert config.prune.updates % config.finetune.updates_an_epoch == 0
    assert "l0_50" in read.systems


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "'' is no name"),
        (["../other"], "'../other' is no name"),
        (["one", "two"], "two names are given, 'one' and 'two'"),
        (["one", "--import"], "unknown option '--import'"),
        (["TEMPLATE"], "egs/TEMPLATE/prune1 is there already"),
    ],
)
def test_what_can_t_be_made_is_named(arguments, message, setup):
    done = setup(*arguments)
    assert done.returncode == 2 and message in done.stderr


def test_a_real_model_is_another_recipe_s(driver, places, tmp_path):
    archive = tmp_path / "model.nemo"
    archive.write_bytes(b"")
    process, commands = driver(
        "--real", str(archive), *places, "--stage", "teacher", "--stop_stage", "6"
    )
    assert process.returncode == 0, process.stderr
    assert f"import_teacher --teacher {archive} " in commands[0]
    process, commands = driver("--real", "nowhere.nemo", *places)
    assert process.returncode == 2 and not commands
    assert "--real: 'nowhere.nemo' is no file" in process.stderr
