"""An experiment folder made up by the tests of reports; its numbers mean nothing."""

import json


def make_system(experiment, name: str, method: str, seed: int = 0, complete: bool = True) -> None:
    """A folder as the stages leave it; ``complete`` for one that is decoded and profiled too."""
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
        "weights_bytes": None if method == "teacher" else {"kept": 3_912_345, "dense": 7_600_000},
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


def edit(path, **values) -> None:
    """Puts other values into an object of JSON."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
