"""The record of a result's making."""

import sys

import pytest

from espnet_prune.record import command_line, provenance


def test_command_holds_on_other_machines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "--config", f"{tmp_path}/conf/a b.yaml", "--out", "exp"])
    assert command_line() == "x --config 'conf/a b.yaml' --out exp"


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("/any/bin/espnet-prune", "espnet-prune"),
        ("/any/site-packages/espnet_prune/__main__.py", "espnet-prune"),  # python -m, torchrun -m
        ("benchmarks/run_all.py", "python benchmarks/run_all.py"),
    ],
)
def test_command_is_one_that_a_user_types(program, name, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "prune"])
    assert command_line() == f"{name} prune"


def test_record_names_versions_seed_and_configuration():
    record = provenance({"a": 1}, 7)
    assert record["seed"] == 7 and record["packages"]["torch"] and record["config_hash"]
    assert record["config_hash"] != provenance({"a": 2}, 7)["config_hash"]
