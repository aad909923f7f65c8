"""The README: what it prints works, its tables are current, its links lead somewhere."""

import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tiny_models import encoder, features

import espnet_prune

MOST_BYTES = 8000
TEXTS = ("*.md", "egs/**/*.md", "benchmarks/**/*.md")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def blocks(path: Path, section: str) -> list[str]:
    """The blocks of code of a section, indented or fenced."""
    text = path.read_text().split(f"# {section}\n")[1].split("\n## ")[0]
    fenced = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^(?:    .*)?\n)+", text, re.MULTILINE)
    return fenced or [textwrap.dedent(block) for block in indented if block.strip()]


@pytest.mark.parametrize(
    ("page", "section"),
    [("README.md", "From Python"), ("docs/how-to/python.md", "Prune in Python")],
)
def test_quick_start_runs_as_printed(page, section, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conformer = encoder().eval()
    espnet_prune.save(conformer, tmp_path / "exp/base/teacher/model")
    scope = {}
    exec(compile(blocks(repository / page, section)[0], page, "exec"), scope)
    assert 0.45 < count(scope["small"]) / count(conformer) < 0.6
    with torch.no_grad():
        loaded = espnet_prune.load(tmp_path / "small")(*features())[0]
        assert torch.equal(loaded, scope["small"].eval()(*features())[0])


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_learned_masks_run_as_printed(repository):
    conformer = encoder().train()
    scope = {"conformer": conformer, "batches": [features()] * 3}
    code = blocks(repository / "docs/how-to/python.md", "Masks that are learned")[0]
    exec(compile(code, "python.md", "exec"), scope)
    assert count(scope["small"]) < count(conformer)


def test_it_stays_short(repository):
    assert (repository / "README.md").stat().st_size <= MOST_BYTES


def test_what_is_generated_is_current(repository):
    command = [sys.executable, "docs/generated.py", "--check"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_generated_tables_know_every_family_and_method(repository, monkeypatch):
    from espnet_prune.methods import METHODS
    from espnet_prune.models import families

    spec = importlib.util.spec_from_file_location("generated", repository / "docs/generated.py")
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    assert generated.support_table().splitlines()[2:] == [f.support.row() for f in families()]
    assert generated.support_matrix().count("✓") > len(families())
    assert all(f"| `{name}` | " in generated.methods_table() for name in METHODS)
    with pytest.raises(ValueError, match="begin result"):
        generated.readme("no marks")


def test_links_lead_to_files(repository):
    broken = [
        f"{path.relative_to(repository)}: {target}"
        for pattern in TEXTS
        for path in repository.glob(pattern)
        if "exp" not in path.parts
        for target in LINK.findall(path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert not broken
