"""What is installed from the package alone, and the files that others read about it."""

import os
import re
import subprocess
import sys
import wave
from pathlib import Path

import pytest
import yaml

FEW_SECONDS = 0.5
RATE = 16000


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Standard output of a command that has to succeed; without this clone on its path."""
    clean = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def packages(repository, tmp_path_factory) -> Path:
    """The folder of the built sdist and wheel; the wheel is made from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, repository, cwd=out)
    return out


@pytest.fixture(scope="module")
def installed(packages, repository, tmp_path_factory) -> Path:
    """Programs of an environment with the wheel, and ESPnet as docs/install.md says."""
    folder = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    programs = folder / "venv" / "bin"
    wheel = next(packages.glob("*.whl"))
    pins = repository / "utils" / "requirements"
    pip = (programs / "python", "-m", "pip", "install", "--quiet")
    known = ("-c", pins / "torch.txt", "-c", pins / "base.txt")
    run(*pip, *known, wheel, cwd=folder)
    if sys.version_info < (3, 12):
        espnet = (*pip, "--no-deps", "--ignore-requires-python", "-r", pins / "espnet.txt")
        run(*espnet, cwd=folder)
    return programs


def test_the_citation_has_what_its_format_demands(repository):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["title"] and citation["authors"]
    assert {entry["type"] for entry in citation["references"]} == {"conference-paper"}


def test_every_extra_is_described(repository):
    configuration = (repository / "setup.cfg").read_text()
    section = configuration.split("[options.extras_require]\n")[1].split("\n[")[0]
    extras = re.findall(r"^(\w+) =$", section, re.MULTILINE)
    described = (repository / "docs/install.md").read_text()
    assert extras and [name for name in extras if f"`{name}`" not in described] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_built_is_fit_for_an_index(packages):
    found = sorted(packages.iterdir())
    assert [path.suffix for path in found] == [".whl", ".gz"]
    run(sys.executable, "-m", "twine", "check", "--strict", *found, cwd=packages)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_works_in_an_empty_environment(installed, system, tmp_path):
    program = installed / "espnet-prune"
    assert "transcribe" in run(program, "--help", cwd=tmp_path)
    recording = tmp_path / "noise.wav"
    with wave.open(str(recording), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(os.urandom(int(2 * RATE * FEW_SECONDS)))
    options = ("transcribe", "--model", system / "model", "--mode", "greedy")
    printed = run(program, *options, recording, cwd=tmp_path)
    assert printed.startswith(f"{recording}\t")
    code = (
        "import sys, espnet_prune\n"
        "assert 'site-packages' in espnet_prune.__file__\n"
        "assert espnet_prune.__version__[0].isdigit()\n"
        "model = espnet_prune.load(sys.argv[1])\n"
        "espnet_prune.save(model, 'again')\n"
    )
    run(installed / "python", "-c", code, system / "model", cwd=tmp_path)
    assert (tmp_path / "again" / "model.safetensors").is_file()
