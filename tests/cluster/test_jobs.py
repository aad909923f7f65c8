"""The program about an experiment's jobs, where there are none."""

import pytest

from espnet_prune.cli import main


@pytest.mark.parametrize("action", ["wait", "cancel", "list"])
def test_a_missing_experiment_is_named(tmp_path, capsys, action):
    assert main(["jobs", action, str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["wait", "cancel", "list"])
def test_no_jobs_is_said(tmp_path, capsys, action):
    folder = tmp_path / "exp/base"
    assert main(["jobs", "begin", str(folder)]) == 0
    assert main(["jobs", action, str(folder)]) == 0
    assert f"{folder}: no jobs" in capsys.readouterr().out
