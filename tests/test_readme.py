"""The README's Python quick start works as printed."""

import re

import torch
from models import encoder, features


def test_quick_start_runs_as_printed(repository, tmp_path, monkeypatch):
    text = (repository / "README.md").read_text()
    section = text.split("## From Python")[1].split("\n## ")[0]
    code = "\n".join(m.group(1) for m in re.finditer(r"^    (.*)$", section, re.MULTILINE))
    assert "espnet_prune.inject" in code
    monkeypatch.chdir(tmp_path)
    scope = {"conformer": encoder().train(), "batches": [features()] * 3}
    exec(compile(code, "README.md", "exec"), scope)
    with torch.no_grad():
        loaded = scope["model"](*features())[0]
        assert torch.equal(loaded, scope["small"].eval()(*features())[0])


def test_support_matrix_names_the_methods(repository):
    from espnet_prune.methods import METHODS

    text = (repository / "README.md").read_text()
    for name in METHODS:
        assert f"`{name}`" in text, name
