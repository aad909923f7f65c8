"""Everything that the stages left in an experiment, gathered into one report.

``report.json``: ``{"schema": 1, "corpus", "experiment", "systems": [{"name", "method", "seed",
"target", "options", "training", "ladder", "shared", "params", "weights_bytes", "sparsity",
"macs_per_second", "rtf", "speedup", "machine", "wer": {"<set>/<mode>": ...}, "train_seconds",
...}]}``; a set is scored once a decoding mode, hence the key; ``shared`` names the system whose run
of stage 8 gave this one too, and the part of ``train_seconds`` and ``updates`` that both have. What
a stage has not made yet, or made of an earlier model, is null, never invented.
"""

import csv
import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet_prune.errors import DataError, ModelError
from espnet_prune.io_atomic import read_json
from espnet_prune.record import MARK, file_digest
from espnet_prune.report.stage_results import (
    SCHEMA,
    read_profile,
    read_record,
    read_result,
    read_score,
)

logger = logging.getLogger(__name__)
TEACHER = "teacher"
SINGLE_WEIGHTS = "_weights"  # how the names of methods end that prune single weights
TEACHER_WEIGHTS = "model/model.safetensors"
REPOSITORY = Path(__file__).resolve().parents[2]
SCORE_KEYS = (
    "errors words wer ci95 p_vs_teacher insertions deletions substitutions utterances tool test "
    "p_vs normalisation"
).split()


@dataclass(frozen=True)
class SiteWidth:
    """How much of a site is left.

    Attributes:
        name: the site's.
        kind: kind of its units.
        block: index of its block, None for the front-end.
        kept: number of units kept.
        units: number of units before the cut.
    """

    name: str
    kind: str
    block: int | None
    kept: int
    units: int


def collect(experiment: Path, corpus: str) -> dict:
    """Gathers one experiment.

    Args:
        experiment: ``exp/<tag>``.
        corpus: its name.

    Returns:
        What report.json holds; the teacher first, then as their names sort.

    Raises:
        DataError: there is no system, or a file isn't what its stage writes; names it.
    """
    folders = system_folders(experiment)
    if not folders:
        raise DataError(f"{experiment}: no <system>/system.json; run the stages before the report")
    systems = [system_entry(folder) for folder in folders]
    return {"schema": SCHEMA, "corpus": corpus, "experiment": experiment.name, "systems": systems}


def system_folders(experiment: Path) -> list[Path]:
    """The folders of the systems, the teacher's first, then as their names sort."""
    folders = (path.parent for path in experiment.glob("*/system.json"))
    return sorted(folders, key=lambda folder: (folder.name != TEACHER, folder.name))


def system_entry(folder: Path) -> dict:
    """What report.json says of one system.

    Args:
        folder: ``exp/<tag>/<system>``.

    Raises:
        DataError: a file isn't what its stage writes; names it.
    """
    record, digest = read_record(folder / "system.json"), _weights_digest(folder)
    profile = _profile(folder / "profile.json", digest)
    seconds = record.get("train_seconds") or {}
    asked = record.get("row") or {}
    return {
        "name": record["name"],
        "method": record.get("method"),
        "seed": record.get("seed"),
        "target": record.get("target"),
        "options": asked.get("options") or {},
        "training": asked.get("training") or {},
        "of": asked.get("of"),
        "as_cut": asked.get("as_cut", False),
        "bits": asked.get("bits"),
        "ladder": asked.get("ladder"),
        "shared": record.get("shared"),
        "params": record.get("params"),
        "weights_bytes": record.get("weights_bytes") or _teacher_bytes(folder, record),
        "sparsity": record.get("sparsity"),
        "macs_per_second": profile.get("macs_per_second"),
        "rtf": profile.get("rtf"),
        "speedup": profile.get("speedup"),
        "machine": profile.get("machine"),
        "int8": profile.get("int8"),
        "wer": {
            f"{score.parent.parent.name}/{score.parent.name}": _score(score)
            for score in sorted(folder.glob("decode/*/*/score.json"))
            if _is_of(score, _decoded(score.parent / MARK), digest)
        },
        "masked_equals_cut": record.get("masked_equals_cut"),
        "updates": record.get("updates"),
        "train_seconds": sum(seconds.values()) if seconds else None,
        "commands": [portable(command, folder) for command in record.get("commands", [])],
        "commit": (record.get("provenance") or {}).get("commit"),
    }


def prunes_single_weights(system: Mapping) -> bool:
    """Whether what the method of a report's system removes stays in the tensors as zeros."""
    return (system["method"] or "").endswith(SINGLE_WEIGHTS)


def own_settings(system: Mapping) -> str:
    """What a report's system's own row says of it; who differs in that is no other seed.

    A report that was written before some of it was recorded has none of that.
    """
    keys = ("options", "training", "of", "as_cut", "bits")
    return json.dumps([system.get(key) or None for key in keys], sort_keys=True)


def _teacher_bytes(folder: Path, record: Mapping) -> dict | None:
    """Size of the teacher's own file, which no stage records; None for another system."""
    path = folder / TEACHER_WEIGHTS
    if record.get("method") != TEACHER or not path.exists():
        return None
    size = path.stat().st_size
    return {"kept": size, "dense": size}


def portable(command: str, system: Path) -> str:
    """A command without this machine's folders: as typed where ``exp`` is, in any clone.

    Args:
        command: as it was recorded.
        system: ``exp/<tag>/<system>``.
    """
    recipe = system.resolve().parent.parent.parent
    places = {recipe: "", REPOSITORY: "$root/"}
    places.pop(Path("/"), None)
    for folder, name in places.items():
        command = re.sub(rf"(?<![\w./-]){re.escape(str(folder))}/", lambda _, n=name: n, command)
    return command


def _weights_digest(folder: Path) -> str | None:
    """Of the weights that decoding and profiling read; None where they aren't there (any more)."""
    from espnet_prune.models.espnet.folder import model_files

    try:
        return file_digest(model_files(folder / "model")[1])
    except (DataError, ModelError):
        return None


def _is_of(path: Path, told: object, digest: str | None) -> bool:
    """Whether a result is of the model that is there, as far as both are known; warns if not."""
    if told is None or digest is None or told == digest:
        return True
    logger.warning("%s: left out, it is of an earlier model; run its stage again", path)
    return False


def _profile(path: Path, digest: str | None) -> dict:
    """A profile.json; empty where there is none of this model."""
    profile = read_profile(path) if path.exists() else {}
    told = ((profile.get("made_from") or {}).get("models") or {}).get("system")
    return profile if _is_of(path, told, digest) else {}


def _decoded(mark: Path) -> object:
    """The digest of the weights that a set was decoded with, if it is told."""
    return (read_json(mark).get("config") or {}).get("model") if mark.exists() else None


def _score(path: Path) -> dict:
    score = read_score(path)
    return {key: score.get(key) for key in SCORE_KEYS}


def kept_widths(experiment: Path) -> dict[str, list[SiteWidth]]:
    """What every system that has a plan keeps of its sites.

    Raises:
        DataError: a plan is damaged; names it.
    """
    plans = (folder / "plan.json" for folder in system_folders(experiment))
    return {plan.parent.name: plan_widths(plan) for plan in plans if plan.exists()}


def plan_widths(path: Path) -> list[SiteWidth]:
    """What a plan keeps of each site.

    Raises:
        DataError: it is damaged; names it.
    """
    sites = read_result(path, ("sites",))["sites"]
    try:
        return [
            SiteWidth(name, site["kind"], site["block"], len(site["kept"]), site["units"])
            for name, site in sites.items()
        ]
    except (AttributeError, KeyError, TypeError) as error:
        problem = f"{path}: a site is malformed ({error!r}); cut the system again"
        raise DataError(problem) from error


def progress_curves(experiment: Path) -> dict[str, Mapping[str, list[float]]]:
    """Every column of the pruning stage's progress.csv by update, by system.

    A column that some row lacks is NaN there.

    Raises:
        DataError: a cell isn't a number; names file and line.
    """
    curves = {}
    for folder in system_folders(experiment):
        path = folder / "prune" / "progress.csv"
        columns = read_progress(path) if path.exists() else {}
        if columns:
            curves[folder.name] = columns
    return curves


def read_progress(path: Path) -> dict[str, list[float]]:
    """The columns of one progress.csv; empty where it has no rows yet.

    Raises:
        DataError: a cell isn't a number, or a row is too long; names file and line.
    """
    columns: dict[str, list[float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            for row in reader:
                for name, cell in row.items():
                    columns.setdefault(name, []).append(float(cell) if cell else math.nan)
    except (TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path}:{reader.line_num}: not a row of numbers ({error}); remove that row, or the "
            "file, which only plots need"
        ) from error
    return columns
