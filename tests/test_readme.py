"""The README's Python quick start works as printed."""

import re
import textwrap

import torch
from tiny_models import encoder, features

import espnet_prune


def printed(repository, number: int) -> str:
    """A block of code of the section From Python."""
    text = (repository / "README.md").read_text()
    section = text.split("## From Python")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", section, re.MULTILINE)
    return textwrap.dedent([block for block in blocks if block.strip()][number])


def test_quick_start_runs_as_printed(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conformer = encoder().eval()
    espnet_prune.save(conformer, tmp_path / "exp/base/teacher/model")
    scope = {}
    exec(compile(printed(repository, 0), "README.md", "exec"), scope)
    assert 0.45 < count(scope["small"]) / count(conformer) < 0.6
    with torch.no_grad():
        loaded = espnet_prune.load(tmp_path / "small")(*features())[0]
        assert torch.equal(loaded, scope["small"].eval()(*features())[0])


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_learned_masks_run_as_printed(repository):
    conformer = encoder().train()
    scope = {"conformer": conformer, "batches": [features()] * 3}
    exec(compile(printed(repository, 1), "README.md", "exec"), scope)
    assert count(scope["small"]) < count(conformer)


def test_support_matrix_names_the_methods(repository):
    from espnet_prune.methods import METHODS

    text = (repository / "README.md").read_text()
    for name in METHODS:
        assert f"`{name}`" in text, name


def test_support_matrix_is_that_of_the_families(repository):
    from espnet_prune.models import families
    from espnet_prune.models.family import COLUMNS

    heading = "| model | " + " | ".join(COLUMNS) + " |"
    lines = (repository / "README.md").read_text().splitlines()
    start = lines.index(heading) + 2
    rows = [family.support.row() for family in families()]
    assert lines[start : start + len(rows) + 1] == [*rows, ""]
