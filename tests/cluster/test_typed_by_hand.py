"""The submitting program typed in a recipe's folder: its site's file, and any Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_prune.cluster.request import REPOSITORY, parse

WORDS = ("--backend", "slurm", "x.log", "true")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A recipe's folder, where we are, and that of another conf; each with a site's file."""
    for name in ("recipe/conf", "other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "slurm.conf").touch()
    monkeypatch.chdir(tmp_path / "recipe")
    monkeypatch.delenv("conf_dir", raising=False)
    return tmp_path


def test_the_site_s_file_is_the_driver_s_or_that_of_the_recipe_or_of_the_clone(
    folders, monkeypatch
):
    assert parse(WORDS).config == folders / "recipe/conf/slurm.conf"
    monkeypatch.setenv("conf_dir", str(folders / "other"))
    assert parse(WORDS).config == folders / "other/slurm.conf"
    (folders / "other/slurm.conf").unlink()
    assert parse(WORDS).config == folders / "recipe/conf/slurm.conf"
    (folders / "recipe/conf/slurm.conf").unlink()
    assert parse(WORDS).config == REPOSITORY / "conf/slurm.conf"


@pytest.fixture
def bare(tmp_path, repository):
    """Runs a clone's program by a Python without packages; ``python`` becomes its .venv's."""
    clone = tmp_path / "clone"
    (clone / "utils").mkdir(parents=True)
    shutil.copy(repository / "utils/submit.py", clone / "utils")
    (clone / "espnet_prune").symlink_to(repository / "espnet_prune")

    def call(environment: Path | None = None, **variables: str):
        if environment:
            (clone / ".venv").symlink_to(environment)
        left = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ESPNET_PR"))}
        return subprocess.run(
            [sys.executable, "-S", clone / "utils/submit.py", "x.log", "echo", "a b"],
            cwd=tmp_path,
            env={**left, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return call


def test_a_python_without_packages_hands_over_to_the_clone_s(bare):
    done = bare(Path(sys.prefix))
    assert (done.returncode, done.stdout) == (0, "a b\n"), done.stderr


def test_without_an_environment_one_line_says_what_to_do(bare, tmp_path):
    done = bare()
    assert done.returncode == 2
    remedy = f"run {tmp_path}/clone/utils/setup_env.sh, or activate your own environment"
    assert done.stderr == f"error: {sys.executable} has no module 'yaml'; {remedy}\n"


def test_an_environment_without_packages_is_not_started_again_and_again(bare, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty"], check=True)
    done = bare(tmp_path / "empty")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/clone/.venv/bin/python has no module 'yaml'")


def test_who_wants_the_current_environment_gets_no_other(bare):
    done = bare(Path(sys.prefix), ESPNET_PRUNE_CURRENT_ENV="1")
    assert done.returncode == 2
    assert "has no module 'yaml'; install this project's packages there, or unset" in done.stderr


@pytest.mark.parametrize(
    ("backend", "given", "seconds"),
    [("slurm", {}, "600"), ("sge", {}, "45"), ("sge", {"stop_seconds": "90"}, "90")],
)
def test_trainings_are_asked_to_stop_when_the_scheduler_can_still_say_so(
    repository, backend, given, seconds
):
    """Grid Engine's queues announce the end 60 s before it."""
    ours = ("train_cmd", "decode_cmd", "cuda_cmd", "stop_seconds", "ngpu", "nodes", "nj")
    environment = {k: v for k, v in os.environ.items() if k not in ours}
    done = subprocess.run(
        ["bash", "-euc", '. egs/TEMPLATE/prune1/cmd.sh; echo "$cuda_cmd"'],
        cwd=repository,
        env={**environment, "cmd_backend": backend, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-2:] == ["--stop-seconds", seconds]
