"""Draws WER against size, speed and real-time factor with the Pareto fronts; the same in JSON."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from espnet_prune.io_atomic import write_json
from espnet_prune.out_path import check_out_folder
from espnet_prune.report.collect import TEACHER
from espnet_prune.report.pareto import Chart, Curve, Point
from espnet_prune.report.plots import COLOURS, MARKERS, TEACHER_MARKER, bars, save, subplots

SCHEMA = 1
PARETO_FILE = "pareto.json"
KINDS = (".png", ".svg")
PANEL_INCHES = 4.6
HEIGHT_INCHES = 4.8
LEGEND_INCHES = 0.22  # a row of it
# The WER axis ends at so many times the highest interval of the fronts; others are named there.
TOP_OF_FRONTS = 2.0
BELOW_TOP_POINTS = 4.0
NAME_POINTS = 8.0
ROW_POINTS = 10.0
NEAR = 0.1  # of a panel's width: names that are closer stand below each other
TEACHER_COLOUR = "black"
TEACHER_MARKERS = (TEACHER_MARKER, *MARKERS)
RING = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": "black", "zorder": 4}


@dataclass(frozen=True)
class Style:
    """How a curve is drawn."""

    colour: str
    marker: str


def write_pareto(
    charts: Mapping[str, Sequence[Chart]], curves: Sequence[Curve], out: Path, command: str
) -> list[Path]:
    """Writes a figure of each set and mode, as PNG and SVG, and ``pareto.json``.

    Args:
        charts: by ``<set>/<mode>``.
        curves: curves of all their systems.
        out: the folder.
        command: what made it.

    Returns:
        The PNG of each figure, and the JSON file last.

    Raises:
        ConfigError: the folder is a file.
    """
    check_out_folder(out)
    figures = {}
    for key, drawn in charts.items():
        name = re.sub(r"[^\w.-]+", "_", key)
        figures[key] = [out / f"pareto_{name}{kind}" for kind in KINDS]
        draw(key, drawn, curves, figures[key])
    result = {
        "schema": SCHEMA,
        "command": command,
        "curves": [asdict(curve) for curve in curves],
        "charts": [
            {
                "wer": key,
                "against": chart.axis.name,
                "label": " ".join(chart.label.split()),
                "better": "more" if chart.axis.more_is_better else "less",
                "front": [point.system for point in front(chart)],
                "points": [asdict(point) for point in chart.points],
                "figures": [path.name for path in figures[key]],
            }
            for key, drawn in charts.items()
            for chart in drawn
        ],
    }
    write_json(out / PARETO_FILE, result)
    return [*(paths[0] for paths in figures.values()), out / PARETO_FILE]


def front(chart: Chart) -> list[Point]:
    """The points of the front, in the axis's order."""
    return sorted((p for p in chart.points if p.on_front), key=lambda point: point.x)


def styles(curves: Sequence[Curve]) -> dict[str, Style]:
    """By label, no two alike: teachers are black, methods have colours and markers in turn."""
    teachers = [curve.label for curve in curves if curve.method == TEACHER]
    methods = [curve.label for curve in curves if curve.method != TEACHER]
    found = {
        label: Style(TEACHER_COLOUR, TEACHER_MARKERS[index % len(TEACHER_MARKERS)])
        for index, label in enumerate(teachers)
    }
    for index, label in enumerate(methods):
        found[label] = Style(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)])
    return found


def draw(key: str, charts: Sequence[Chart], curves: Sequence[Curve], paths: Sequence[Path]) -> None:
    """One figure: a panel for each axis.

    Args:
        key: ``<set>/<mode>``.
        charts: one or more of it.
        curves: give colours and markers.
        paths: the files to write, by their endings.
    """
    shown = {point.curve for chart in charts for point in chart.points}
    drawn = styles([curve for curve in curves if curve.label in shown])
    height = HEIGHT_INCHES + LEGEND_INCHES * (1 + len(drawn) // 3)
    width = PANEL_INCHES * max(2, len(charts))
    figure, panels = subplots(1, width, height, len(charts), sharey=True, squeeze=False)
    for panel, chart in zip(panels[0], charts, strict=True):
        _panel(panel, chart, drawn)
    panels[0, 0].set_ylabel(f"WER % on {key}, 95% interval")
    panels[0, 0].set_ylim(0, _name_those_above(panels[0], charts, drawn))
    handles = dict(
        pair
        for panel in panels[0]
        for pair in zip(*reversed(panel.get_legend_handles_labels()), strict=True)
    )
    figure.legend(handles.values(), handles, loc="outside lower center", fontsize=8, ncols=3)
    save(figure, *paths)


def _name_those_above(
    panels: Sequence, charts: Sequence[Chart], drawn: Mapping[str, Style]
) -> float | None:
    """The end of the WER axis, None for where the points end; one failed system hides no others."""
    tops = [point.ci95[1] for chart in charts for point in front(chart)]
    points = [point for chart in charts for point in chart.points]
    top = TOP_OF_FRONTS * max(tops, default=0)
    if not top or all(point.ci95[1] <= top for point in points):
        return None
    for axes, chart in zip(panels, charts, strict=True):
        above = sorted((p for p in chart.points if p.wer > top), key=lambda p: (p.x, -p.wer))
        _write_names(axes, above, top, drawn)
    return top


def _write_names(axes, above: Sequence[Point], top: float, drawn: Mapping[str, Style]) -> None:
    """Names the points above the axis, by x; inside the panel, in rows where they are near."""
    left, right = axes.get_xlim()
    placed: list[tuple[float, int]] = []
    for point in above:
        taken = {row for x, row in placed if abs(point.x - x) < NEAR * (right - left)}
        row = next(row for row in range(len(taken) + 1) if row not in taken)
        placed.append((point.x, row))
        axes.annotate(
            f"{point.wer:.0f} ↑",
            (point.x, top),
            (0, -BELOW_TOP_POINTS - ROW_POINTS * row),
            textcoords="offset points",
            color=drawn[point.curve].colour,
            ha="center",
            va="top",
            fontsize=NAME_POINTS,
        )


def _panel(axes, chart: Chart, drawn: Mapping[str, Style]) -> None:
    lines: dict[tuple, list[Point]] = defaultdict(list)
    for point in sorted(chart.points, key=lambda point: point.x):
        lines[point.curve, point.seed].append(point)
    for (curve, _), points in lines.items():
        axes.errorbar(
            [point.x for point in points],
            [point.wer for point in points],
            bars([point.wer for point in points], [point.ci95 for point in points]),
            fmt=f"{drawn[curve].marker}-",
            color=drawn[curve].colour,
            label=curve,
            capsize=2,
            linewidth=1,
            elinewidth=0.7,
            markersize=5,
        )
    best = front(chart)
    if best:
        xs, ys = [point.x for point in best], [point.wer for point in best]
        where = "pre" if chart.axis.more_is_better else "post"
        axes.step(xs, ys, ":", where=where, color="black", linewidth=1)
        axes.plot(xs, ys, "o", label="Pareto front of the measured values", **RING)
    if any(point.on_front is None for point in chart.points):
        axes.set_title("measured on several machines: no front", fontsize=9)
    axes.set_xlabel(chart.label)
    axes.grid(alpha=0.3)
