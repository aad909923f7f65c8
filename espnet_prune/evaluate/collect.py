"""Everything that the stages left in an experiment, gathered into one report.

``report.json``: ``{"schema": 1, "corpus", "systems": [{"name", "method", "seed", "target",
"params", "sparsity", "macs_per_second", "rtf", "speedup", "wer": {"<set>/<mode>": ...},
"train_seconds", ...}]}``. What a stage has not made yet is null, never invented.
"""

import csv
from pathlib import Path

from espnet_prune.errors import DataError
from espnet_prune.io_atomic import read_json

SCHEMA = 1
TEACHER = "teacher"


def collect(experiment: Path, corpus: str) -> dict:
    """Gathers one experiment.

    Args:
        experiment: ``exp/<tag>``.
        corpus: its name.

    Returns:
        What report.json holds; the teacher first, then as their names sort.

    Raises:
        DataError: there is no system, or a file isn't valid JSON; names it.
    """
    folders = sorted(path.parent for path in experiment.glob("*/system.json"))
    if not folders:
        raise DataError(f"{experiment}: no <system>/system.json; run the stages before the report")
    folders.sort(key=lambda folder: (folder.name != TEACHER, folder.name))
    systems = [_system(folder) for folder in folders]
    return {"schema": SCHEMA, "corpus": corpus, "experiment": experiment.name, "systems": systems}


def _system(folder: Path) -> dict:
    record = read_json(folder / "system.json")
    path = folder / "profile.json"
    profile = read_json(path) if path.exists() else {}
    seconds = record.get("train_seconds") or {}
    return {
        "name": record.get("name", folder.name),
        "method": record.get("method"),
        "seed": record.get("seed"),
        "target": record.get("target"),
        "params": record.get("params"),
        "sparsity": record.get("sparsity"),
        "macs_per_second": profile.get("macs_per_second"),
        "rtf": profile.get("rtf"),
        "speedup": profile.get("speedup"),
        "machine": profile.get("machine"),
        "wer": {
            f"{score.parent.parent.name}/{score.parent.name}": _score(score)
            for score in sorted(folder.glob("decode/*/*/score.json"))
        },
        "masked_equals_cut": record.get("masked_equals_cut"),
        "updates": record.get("updates"),
        "train_seconds": sum(seconds.values()) if seconds else None,
        "commands": record.get("commands", []),
        "commit": (record.get("provenance") or {}).get("commit"),
    }


def _score(path: Path) -> dict:
    keys = ("errors", "words", "wer", "ci95", "p_vs_teacher", "tool", "test")
    score = read_json(path)
    return {key: score.get(key) for key in keys}


def kept_widths(experiment: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """(kept, units) by site and system, for every system that has a plan."""
    widths = {}
    for path in sorted(experiment.glob("*/plan.json")):
        sites = read_json(path)["sites"]
        widths[path.parent.name] = {
            name: (len(site["kept"]), site["units"]) for name, site in sites.items()
        }
    return widths


def sparsity_curves(experiment: Path) -> dict[str, dict[str, list[float]]]:
    """Target, expected and hard sparsity and the multipliers by update, by system."""
    names = "target_sparsity expected_sparsity hard_sparsity lambda_linear lambda_quadratic"
    curves = {}
    for path in sorted(experiment.glob("*/prune/progress.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if rows and "target_sparsity" in rows[0]:
            curves[path.parent.parent.name] = {
                name: [float(row[name]) for row in rows]
                for name in names.split()
                if name in rows[0]
            }
    return curves


def loss_curves(experiment: Path) -> dict[str, dict[str, list[float]]]:
    """Every part of the loss by update, by system, of the pruning stage."""
    curves = {}
    for path in sorted(experiment.glob("*/prune/progress.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in (rows[0] if rows else {}) if name.startswith("loss")]
        curves[path.parent.parent.name] = {n: [float(row[n]) for row in rows] for n in names}
    return curves
