"""A folder for Hugging Face's hub: a system's model, its plan and numbers, and a filled card."""

import shutil
from dataclasses import replace
from pathlib import Path

from espnet_prune.errors import DataError
from espnet_prune.io_atomic import atomic_path, read_json, write_json, write_text
from espnet_prune.out_path import check_out_folder
from espnet_prune.report import plots
from espnet_prune.report.card import CardOptions, model_card
from espnet_prune.report.collect import TEACHER, plan_widths, system_entry
from espnet_prune.report.report import REPORT_FILE, REPORT_FOLDER
from espnet_prune.report.stage_results import read_result

DESCRIPTION = "model.json"
MODEL_FILES = ("model.safetensors", "bpe.model", DESCRIPTION)
PLAN, RESULTS, CARD, PICTURE = "plan.json", "results.json", "README.md", "structure.png"


def write_hub_folder(system: Path, out: Path, options: CardOptions) -> Path:
    """Writes the folder, which ``espnet_prune.load`` takes as it is.

    Args:
        system: ``exp/<tag>/<system>``, finished; its numbers are those of the stages so far.
        out: made if missing; files of these names are replaced, or removed where an earlier call
            wrote them of a system that had more; others stay.
        options: what no stage knows.

    Returns:
        The card.

    Raises:
        ConfigError: ``out`` is a file.
        DataError: the system has no final model yet, or a record is damaged.
    """
    model = system / "model"
    if not (model / DESCRIPTION).exists():
        raise DataError(f"{model}: no model there; run stages 8 to 10 for this system first")
    check_out_folder(out)
    # all is read before anything is written
    entry = system_entry(system)
    encoder = (read_json(model / DESCRIPTION).get("config") or {}).get("encoder", "")
    widths = plan_widths(system / PLAN) if (system / PLAN).exists() else None
    pictures = [] if widths is None else [PICTURE]
    options = replace(options, corpus=options.corpus or _corpus(system))
    text = model_card(entry, _dense(system), encoder, options, pictures)
    copied = [*(model / name for name in MODEL_FILES), system / PLAN]
    copied = [path for path in copied if path.exists()]
    _remove_earlier(out, {path.name for path in copied} | {RESULTS, CARD, *pictures})
    for path in copied:
        with atomic_path(out / path.name) as temporary:
            shutil.copyfile(path, temporary)
    if widths is not None:
        plots.plot_widths(options.name or entry["name"], widths, out / PICTURE)
    write_json(out / RESULTS, {"schema": 1, **entry})
    write_text(out / CARD, text)
    return out / CARD


def _remove_earlier(out: Path, new: set[str]) -> None:
    """Removes what an earlier call wrote and this one won't; nothing where there was none."""
    if (out / RESULTS).exists():
        for name in {*MODEL_FILES, PLAN, PICTURE} - new:
            (out / name).unlink(missing_ok=True)


def _dense(system: Path) -> dict | None:
    teacher = system.parent / TEACHER
    known = (teacher / "system.json").exists() and teacher.resolve() != system.resolve()
    return system_entry(teacher) if known else None


def _corpus(system: Path) -> str | None:
    """The corpus by the experiment's report, where there is one."""
    path = system.parent / REPORT_FOLDER / REPORT_FILE
    corpus = read_result(path).get("corpus") if path.exists() else None
    return None if corpus == "unnamed" else corpus
