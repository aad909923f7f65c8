"""The site builds without a warning, and the notebook runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(command: list[str], cwd: Path, environment: dict[str, str] | None = None) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_the_site_builds_without_a_warning(repository, tmp_path):
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        str(tmp_path / "d"),
    ]
    run([*command, str(repository / "docs"), str(tmp_path / "site")], tmp_path)
    site = tmp_path / "site"
    assert "espnet-prune transcribe" in (site / "generated/command-line.html").read_text()
    assert "GatedModel" in (site / "reference/python.html").read_text()
    assert len(list((site / "generated/results").glob("*.html"))) > 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebook_runs(repository, tmp_path):
    notebook = json.loads((repository / "docs/tutorials/prune_in_minutes.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    script = tmp_path / "notebook.py"
    script.write_text("\n".join("".join(cell["source"]) for cell in cells))
    printed = run([sys.executable, str(script)], tmp_path, {"PYTHONPATH": str(repository)})
    (errors,) = [line for line in printed.splitlines() if line.startswith("finetuned")]
    pruned, teacher = (float(word.split("%")[0]) for word in errors.split() if "%" in word)
    assert teacher < 10 and pruned < 20, printed
