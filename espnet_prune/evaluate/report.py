"""The report: report.json, RESULTS.md, plots, and one page with all of it."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.evaluate import plots, tables
from espnet_prune.evaluate.collect import collect, kept_widths, loss_curves, sparsity_curves
from espnet_prune.io_atomic import write_json, write_text

STYLE = (
    "body{font-family:sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse}"
    "td,th{border:1px solid #bbb;padding:.3em .6em;font-size:.85em;text-align:left}"
    "img{max-width:100%;margin:1em 0}"
)


def write_report(
    experiments: Sequence[Path], corpus: str, out: Path, command: str
) -> tuple[str, Path]:
    """Writes the report of one experiment, or of several side by side.

    Args:
        experiments: ``exp/<tag>`` folders.
        corpus: name of the corpus.
        out: folder of the report.
        command: what made it, for RESULTS.md.

    Returns:
        The table as plain text, and the page's path.

    Raises:
        DataError: an experiment has no system, or a file is damaged.
    """
    reports = [collect(experiment, corpus) for experiment in experiments]
    merged = reports[0] if len(reports) == 1 else {"schema": 1, "experiments": reports}
    write_json(out / "report.json", merged)
    write_text(out / "RESULTS.md", tables.markdown(reports, command))
    pictures = _plots(reports, experiments, out)
    page = out / "index.html"
    write_text(page, _page(reports, pictures, command))
    return tables.plain_text(reports), page


def _plots(reports: Sequence[dict], experiments: Sequence[Path], out: Path) -> list[Path]:
    pictures = []
    for key in tables.wer_keys(reports):
        path = out / f"wer_against_size_{key.replace('/', '_')}.png"
        pictures.append(plots.plot_wer_against_size(reports, key, path))
    for experiment in experiments:
        tag = f"{experiment.name}_" if len(experiments) > 1 else ""
        curves = sparsity_curves(experiment)
        if curves:
            pictures.append(plots.plot_sparsity(curves, out / f"{tag}sparsity.png"))
        for name, losses in loss_curves(experiment).items():
            if losses:
                path = out / f"{tag}losses_{name}.png"
                pictures.append(plots.plot_losses(name, losses, path))
        for name, sites in kept_widths(experiment).items():
            path = out / f"{tag}widths_{name}.png"
            pictures.append(plots.plot_widths(name, sites, path))
    return pictures


def _page(reports: Sequence[dict], pictures: Sequence[Path], command: str) -> str:
    header, body = tables.rows(reports)
    title = html.escape("Results: " + ", ".join(dict.fromkeys(r["corpus"] for r in reports)))
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body
    ]
    means = "".join(f"<p>{html.escape(line)}</p>" for line in tables.seed_means(reports))
    images = []
    for path in pictures:
        data = base64.b64encode(path.read_bytes()).decode()
        images.append(f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">')
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>Made by <code>{html.escape(command)}</code>. WER in percent with its 95% interval and "
        "p against the uncompressed model; sparsity of the prunable part.</p>"
        f"<table><tr>{head}</tr>{''.join(lines)}</table>{means}{''.join(images)}</body></html>\n"
    )
