"""The report: report.json, RESULTS.md, plots, and one page with all of it."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_prune.errors import DataError
from espnet_prune.io_atomic import write_json, write_text
from espnet_prune.out_path import check_out_folder
from espnet_prune.report import plots, tables
from espnet_prune.report.collect import collect, kept_widths, progress_curves
from espnet_prune.report.page import Picture, render_page
from espnet_prune.report.stage_results import SCHEMA, read_result
from espnet_prune.report.text_table import named_systems

REPORT_FOLDER = "report"
REPORT_FILE = "report.json"
SIZE, WIDTHS, TRAINING = "wer_against_size", "widths", "training"  # what pictures are called
UNNAMED = "unnamed"


def write_report(
    experiments: Sequence[Path], corpus: str | None, out: Path | None, command: str
) -> tuple[str, Path, Path]:
    """Writes the report of one experiment, or of several side by side.

    Args:
        experiments: ``exp/<tag>`` folders.
        corpus: name of the corpus; None to take it from each experiment's own report.
        out: folder of the report; None for ``report`` in the experiment, or, of several,
            ``report/compared_with_<tag>...`` in the first one.
        command: what made it, for RESULTS.md.

    Returns:
        The table as plain text, and the paths of RESULTS.md and the page.

    Raises:
        ConfigError: the report's folder is a file.
        DataError: an experiment has no system or is given twice, or a file is damaged.
    """
    labels = distinguishing_names(experiments)
    reports = [collect(folder, corpus or _corpus_of(folder)) for folder in experiments]
    for report, label in zip(reports, labels, strict=True):
        report["experiment"] = label
    out = out or _default_folder(experiments, labels)
    check_out_folder(out)
    merged = reports[0] if len(reports) == 1 else {"schema": SCHEMA, "experiments": reports}
    results, page = out / "RESULTS.md", out / "index.html"
    # All is read before anything is drawn, so that a damaged file leaves no half of a report.
    shapes, curves = (
        {
            (f"{label}/" if len(labels) > 1 else "") + name: values
            for label, folder in zip(labels, experiments, strict=True)
            for name, values in read(folder).items()
        }
        for read in (kept_widths, progress_curves)
    )
    another_before = (out / REPORT_FILE).exists()
    pictures = _plots(named_systems(reports), shapes, curves, out)
    write_json(out / REPORT_FILE, merged)
    write_text(results, tables.markdown(reports, command))
    write_text(page, render_page(reports, pictures, command))
    if another_before:  # else pictures that are called alike may be anybody's
        _remove_others(out, pictures)
    return tables.plain_text(reports), results, page


def distinguishing_names(experiments: Sequence[Path]) -> list[str]:
    """The folders' names; where two are the same, the part of the paths that differs.

    Raises:
        DataError: one is given twice.
    """
    paths = [path.resolve() for path in experiments]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise DataError(f"{twice[0]}: this experiment is given twice; name each once")
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath(paths)
    parts = [path.relative_to(common).parts for path in paths]
    while len({part[-1] for part in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [part[:-1] for part in parts]
    return ["/".join(part) for part in parts]


def _corpus_of(experiment: Path) -> str:
    """The corpus by the experiment's own report, where there is one."""
    path = experiment / REPORT_FOLDER / REPORT_FILE
    return read_result(path).get("corpus", UNNAMED) if path.exists() else UNNAMED


def _default_folder(experiments: Sequence[Path], labels: Sequence[str]) -> Path:
    folder = experiments[0] / REPORT_FOLDER
    if len(experiments) == 1:
        return folder
    return folder / _file_name("compared_with_" + "_".join(labels[1:]))


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)


def _picture(out: Path, kind: str, name: str) -> Path:
    return out / _file_name(f"{kind}_{name}.png")


def _remove_others(out: Path, pictures: Sequence[Picture]) -> None:
    """Pictures of an earlier report whose system, set or mode is gone."""
    kept = {picture.path for picture in pictures}
    for kind in (SIZE, WIDTHS, TRAINING):
        for path in out.glob(f"{kind}_*.png"):
            if path not in kept:
                path.unlink()


def _plots(
    systems: Sequence[tuple[str, dict]], shapes: Mapping, curves: Mapping, out: Path
) -> list[Picture]:
    found = []
    for key in tables.wer_keys([system for _, system in systems]):
        path = _picture(out, SIZE, key)
        if plots.plot_wer_against_size(systems, key, path):
            found.append(Picture(path, f"WER against size, {key}"))
    for name, sites in shapes.items():
        path = plots.plot_widths(name, sites, _picture(out, WIDTHS, name))
        found.append(Picture(path, f"{name}: units kept by layer and kind"))
    for name, columns in curves.items():
        path = plots.plot_training(name, columns, _picture(out, TRAINING, name))
        title = f"{name}: sparsity, multipliers and losses of the pruning stage"
        found.append(Picture(path, title))
    return found
