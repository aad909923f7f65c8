"""The small shell programs of utils/."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UTILS = ROOT / "utils"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.sh"
    path.write_text(
        "#!/usr/bin/env bash\nset -euo pipefail\n# <options>\n# Group\n"
        'first=1    # the first\nsecond="a b"  # the second\n# </options>\n'
        "usage() { print_options; }\n"
        f'. "{UTILS}/parse_options.sh"\nparse_options "$@"\necho "$first|$second"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "1|a b\n"),
        (["--first", "x y", "--second="], "x y|\n"),
        (["--second=a=b", "--first=-1"], "-1|a=b\n"),
    ],
)
def test_options_take_values(script, arguments, expected):
    assert run(script, *arguments).stdout == expected


def test_help_shows_defaults(script):
    process = run(script, "--help")
    assert process.returncode == 0
    assert "Group" in process.stdout
    assert "the second [a b]" in process.stdout
    assert "the second [c d]" in run(script, "--second", "c d", "--help").stdout


@pytest.mark.parametrize("arguments", [["--firt", "1"], ["--first"], ["1"], ["--path", "x"]])
def test_wrong_arguments_end_the_script(script, arguments):
    process = run(script, *arguments)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert not process.stdout


def test_nearest_option_is_suggested(script):
    assert "did you mean --first?" in run(script, "--firt", "1").stderr


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The least of a clone that setup_env.sh needs, without a virtual environment."""
    root = tmp_path / "clone"
    shutil.copytree(UTILS, root / "utils")
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    return root


def test_setup_refuses_unknown_option(clone):
    process = run(clone / "utils/setup_env.sh", "--tests")
    assert process.returncode == 2
    assert "'--tests'" in process.stderr


def fake_python(folder: Path, body: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return path


def test_setup_refuses_unsupported_python(clone, tmp_path):
    python = fake_python(tmp_path, "exit 1")
    process = run(clone / "utils/setup_env.sh", PYTHON=str(python))
    assert process.returncode == 1
    assert f"PYTHON={python} is not a working Python of version 3.11 to 3.13" in process.stderr
    assert not (clone / ".venv").exists()


def test_setup_names_the_log_when_pip_fails_and_starts_anew(clone, tmp_path):
    # Supported, with venv, and makes a .venv whose pip fails.
    python = fake_python(
        tmp_path,
        '[[ "$*" == *"-m venv"* ]] && { mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/"; exit; }\n'
        '[[ "$*" == *"-m pip"* ]] && { echo "no network"; exit 1; }\nexit 0',
    )
    for _ in range(2):
        process = run(clone / "utils/setup_env.sh", PYTHON=str(python))
        assert process.returncode == 1
        assert f"{clone}/.setup_env.log" in process.stderr
        assert "no network" in process.stderr
        assert (clone / ".venv/.building").exists()
    assert "interrupted: starting anew" in process.stderr


def fake_pip(tmp_path: Path) -> dict[str, str]:
    """The environment of a set-up whose pip only notes its arguments in tmp_path/calls."""
    python = fake_python(
        tmp_path,
        '[[ "$*" == *"-m venv"* ]] && { mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/"; exit; }\n'
        f'[[ "$*" == *"-m pip"* ]] && echo "$*" >> {tmp_path}/calls\nexit 0',
    )
    return {"PYTHON": str(python), "PATH": f"{with_programs(tmp_path)}:{os.environ['PATH']}"}


def test_setup_is_quick_when_current(clone, tmp_path):
    """A pip that works is called once; the second call changes nothing."""
    environment = fake_pip(tmp_path)
    first = run(clone / "utils/setup_env.sh", **environment)
    assert first.returncode == 0, first.stderr
    calls = (tmp_path / "calls").read_text()
    second = run(clone / "utils/setup_env.sh", **environment)
    assert second.returncode == 0
    assert second.stderr == ""
    assert (tmp_path / "calls").read_text() == calls
    (clone / "utils/requirements/base.txt").write_text("numpy==2.0.0\n")
    assert "ready" in run(clone / "utils/setup_env.sh", **environment).stderr


def test_setup_adds_what_is_asked_for_once(clone, tmp_path):
    """Each option's file of pins is installed when its stamp differs, and no other file again."""
    environment = fake_pip(tmp_path)

    def installed(*options: str) -> list[str]:
        (tmp_path / "calls").write_text("")
        process = run(clone / "utils/setup_env.sh", *options, **environment)
        assert process.returncode == 0, process.stderr
        words = (tmp_path / "calls").read_text().split()
        return [Path(word).stem for word in words if f"{clone}/utils/requirements/" in word]

    assert not {"hf", "test", "slow"} & set(installed())
    assert installed("--hf") == ["hf"]
    assert installed("--hf") == []
    assert installed("--test") == ["test"]
    assert installed("--hf", "--test") == []
    (clone / "utils/requirements/hf.txt").write_text("transformers==5.0.0\n")
    assert installed() == []
    assert installed("--test") == ["hf"]
    assert installed("--slow") == ["slow"]
    assert installed("--slow") == installed("--test") == []


def test_package_is_pinned_once():
    pins = [
        re.split("[=;]", line)[0]
        for path in (UTILS / "requirements").glob("*.txt")
        for line in path.read_text().splitlines()
        if not line.startswith("#")
    ]
    assert sorted(set(pins)) == sorted(pins)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("synth/l0_conformer1", ""),
        ("librispeech_100/pinch_wav2vec2_1", "--hf"),
        ("librispeech_100/pinch_hubert1", "--hf"),
        ("librispeech_10/pinch_whisper1", "--hf"),
    ],
)
def test_recipe_sets_up_the_extra_that_it_needs(clone, recipe, options):
    shutil.copytree(ROOT / "egs/TEMPLATE", clone / "egs/TEMPLATE")
    folder = clone / "egs" / recipe
    shutil.copytree(ROOT / "egs" / recipe / "conf", folder / "conf")
    shutil.copy(ROOT / "egs" / recipe / "run.sh", folder)
    setup = clone / "utils/setup_env.sh"
    setup.write_text('#!/usr/bin/env bash\necho "options: $*"\nexit 3\n')
    process = run(folder / "run.sh", ESPNET_PRUNE_CURRENT_ENV="")
    assert process.returncode == 3, process.stderr
    assert process.stdout == f"options: {options}\n"


def with_programs(tmp_path: Path) -> Path:
    """A folder that makes all Debian packages seem installed."""
    folder = tmp_path / "debian"
    folder.mkdir()
    for name in ("flite", "sclite", "munged", "slurmctld", "slurmd", "sbatch"):
        shutil.copy("/bin/true", folder / name)
    return folder


@pytest.mark.parametrize(("arguments", "options"), [([], "--test"), (["--all"], "--slow")])
def test_run_tests_sets_up_what_its_tests_need(clone, arguments, options):
    setup = clone / "utils/setup_env.sh"
    setup.write_text('#!/usr/bin/env bash\necho "options: $*"\nexit 3\n')
    process = run(clone / "utils/run_tests.sh", *arguments)
    assert (process.returncode, process.stdout) == (3, f"options: {options}\n")


def test_run_tests_help():
    process = run(UTILS / "run_tests.sh", "--help")
    assert process.returncode == 0
    assert "--all" in process.stdout
