"""Plots of what run_all.py measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the display is chosen first)

WIDTH, HEIGHT = 8.0, 4.5


def plot_all(record: Mapping, folder: Path) -> list[Path]:
    """Writes a picture of each part that has one; returns their paths."""
    title = f"{record['machine']['cpu']}, {record['threads']} thread, batch 1"
    parts = {"grid": plot_grid, "size": plot_size, "length": plot_length}
    made = []
    for name, plot in parts.items():
        if name in record:
            figure = plot(record[name]["rows"], f"{record[name]['what']}\n{title}")
            made.append(folder / f"{name}.png")
            figure.savefig(made[-1], dpi=120, bbox_inches="tight")
            pyplot.close(figure)
    return made


def plot_grid(rows: Sequence[Mapping], title: str):
    """Predicted and realised speed-ups of the structures, as bars."""
    figure, axes = pyplot.subplots(figsize=(WIDTH, 0.4 * len(rows) + 2))
    bars = {
        "predicted by MACs": "predicted",
        "realised, our pass": "speedup",
        "realised, ESPnet's pass": "speedup_espnet",
    }
    height = 0.8 / len(bars)
    for index, (label, key) in enumerate(bars.items()):
        places = [place + (index - 1) * height for place in range(len(rows))]
        axes.barh(places, [row[key] for row in rows], height, label=label)
    axes.set_yticks(range(len(rows)), [row["structure"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as dense by the same pass")
    axes.set_title(title, fontsize=9)
    axes.legend()
    return figure


def plot_size(rows: Sequence[Mapping], title: str):
    """Seconds of dense and cut encoders by their width."""
    figure, axes = pyplot.subplots(figsize=(WIDTH, HEIGHT))
    sizes = [row["size"] for row in rows]
    for name in ("dense", "cut"):
        for key, style in (("ours", "-o"), ("espnet", "--o")):
            values = [row[f"{name}_seconds"][key] for row in rows]
            whose = "our pass" if key == "ours" else "ESPnet's pass"
            axes.plot(sizes, values, style, label=f"{name}, {whose}")
    return _logarithmic(figure, axes, "width of the model", "seconds", title)


def plot_length(rows: Sequence[Mapping], title: str):
    """Seconds of work for a second of audio by length."""
    figure, axes = pyplot.subplots(figsize=(WIDTH, HEIGHT))
    for name in rows[0]["rtf"]:
        axes.plot([r["seconds"] for r in rows], [r["rtf"][name] for r in rows], "-o", label=name)
    return _logarithmic(figure, axes, "seconds of audio", "seconds of work a second", title)


def _logarithmic(figure, axes, x: str, y: str, title: str):
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=9)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    return figure
