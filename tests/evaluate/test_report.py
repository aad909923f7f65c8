"""The report from an experiment folder made up by the test; its numbers mean nothing."""

import json

import pytest

from espnet_prune.bin.report import main
from espnet_prune.errors import DataError
from espnet_prune.evaluate.collect import collect


def make_system(experiment, name: str, method: str, seed: int = 0, complete: bool = True) -> None:
    folder = experiment / name
    dense = 1000
    kept = dense if method == "teacher" else 600
    record = {
        "schema": 1,
        "name": name,
        "method": method,
        "seed": seed,
        "target": 0.5,
        "sparsity": None
        if method == "teacher"
        else {"measure": "parameters", "kept": 400, "total": 800, "value": 0.5, "expected": 0.49},
        "params": {
            "prunable": None if method == "teacher" else {"kept": 400, "dense": 800},
            "encoder": {"kept": kept, "dense": dense},
            "total": {"kept": kept + 100, "dense": dense + 100},
        },
        "train_seconds": {"prune": 1.5, "finetune": 2.0},
        "updates": {"prune": 10, "finetune": 5},
        "commands": ["python -m example"],
        "provenance": {"commit": "abc"},
    }
    folder.mkdir(parents=True)
    (folder / "system.json").write_text(json.dumps(record))
    if not complete:
        return
    score = {"schema": 1, "errors": 5, "words": 100, "wer": 5.0 + seed, "ci95": [2.0, 9.0]}
    score["p_vs_teacher"] = None if method == "teacher" else 0.4
    for mode in ("greedy", "joint"):
        path = folder / "decode" / "test" / mode / "score.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(score))
    rtf = {"encoder": 0.01, "ctc_greedy": 0.02, "joint": 0.2, "threads": 1, "batch": 1}
    speedup = {"encoder": 1.4, "predicted": 1.5}
    profile = {"schema": 1, "macs_per_second": 1e6, "rtf": rtf, "speedup": speedup}
    (folder / "profile.json").write_text(json.dumps(profile))
    if method == "l0_distill":
        (folder / "prune").mkdir()
        (folder / "prune" / "progress.csv").write_text(
            "epoch,update,loss,target_sparsity,expected_sparsity,hard_sparsity,lambda_linear\n"
            "1,1,3.0,0.1,0.1,0.0,0.0\n1,2,2.5,0.2,0.15,0.1,-1.0\n"
        )
        site = {"kind": "head", "block": 0, "units": 4, "kept": [0, 2]}
        plan = {"schema": 1, "sites": {"block.0.attention.heads": site}}
        (folder / "plan.json").write_text(json.dumps(plan))


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / "exp" / "base"
    make_system(folder, "teacher", "teacher")
    make_system(folder, "l0_50", "l0_distill")
    make_system(folder, "l0_50_seed1", "l0_distill", seed=1)
    return folder


def test_report_has_the_schema(experiment, capsys):
    assert main([str(experiment), "--corpus", "made_up"]) == 0
    report = json.loads((experiment / "report" / "report.json").read_text())
    assert report["schema"] == 1 and report["corpus"] == "made_up"
    assert [s["name"] for s in report["systems"]] == ["teacher", "l0_50", "l0_50_seed1"]
    system = report["systems"][1]
    assert set(system) >= {
        "name", "method", "params", "sparsity", "macs_per_second", "rtf", "speedup", "wer",
        "train_seconds",
    }  # fmt: skip
    assert set(system["wer"]["test/joint"]) >= {"errors", "words", "wer", "ci95", "p_vs_teacher"}
    assert system["train_seconds"] == 3.5
    printed = capsys.readouterr().out
    assert "l0_50" in printed and "index.html" in printed


def test_page_is_self_contained_and_plots_are_there(experiment):
    main([str(experiment), "--corpus", "made_up"])
    page = (experiment / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64,") >= 4
    assert 'src="http' not in page
    results = (experiment / "report" / "RESULTS.md").read_text()
    assert "python -m example" in results
    assert "mean 5.50% WER, standard deviation 0.71 over 2 seeds" in results


def test_what_has_not_run_says_so(experiment):
    make_system(experiment, "half_done", "magnitude", complete=False)
    main([str(experiment), "--corpus", "made_up"])
    row = next(
        line
        for line in (experiment / "report" / "RESULTS.md").read_text().splitlines()
        if line.startswith("| half_done")
    )
    assert row.count("not run") >= 4


def test_several_experiments_side_by_side(experiment, tmp_path, capsys):
    other = tmp_path / "exp" / "other"
    make_system(other, "teacher", "teacher")
    main([str(experiment), str(other), "--corpus", "made_up", "--out", str(tmp_path / "both")])
    printed = capsys.readouterr().out
    assert "base/l0_50" in printed and "other/teacher" in printed


def test_no_system_is_an_error(tmp_path):
    with pytest.raises(DataError, match="system.json"):
        collect(tmp_path, "made_up")


def test_a_damaged_file_is_named(experiment):
    (experiment / "l0_50" / "profile.json").write_text("{")
    with pytest.raises(DataError, match="profile.json"):
        collect(experiment, "made_up")
