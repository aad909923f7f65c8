"""Plots of a report: kept widths, the pruning stage over its updates, WER against size."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from espnet_prune.io_atomic import atomic_path
from espnet_prune.report.collect import TEACHER, SiteWidth, prunes_single_weights

DOTS_PER_INCH = 110
SPARSITIES = {"target_sparsity": ":", "expected_sparsity": "-", "hard_sparsity": "--"}
MULTIPLIERS = ("lambda_linear", "lambda_quadratic")
# Systems nearer to each other than this share of the plot's width are drawn so far apart.
NEAR = 0.04
SIDE_STEP = 0.015
FRONT_END = "front-end"
# matplotlib's own cycle, then ten that are farther from these, each other, black and white than its
# two nearest are from each other (27.7 in CIELAB).
COLOURS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
    *("#0000ff", "#ff22ff", "#334400", "#6600aa", "#00ddaa"),
    *("#ff0077", "#eebb88", "#00dd00", "#996600", "#0066ff"),
)
# What tells lines and points apart where colours can't: in grey, and for many eyes.
STYLES = ("-", "--", "-.", ":")
TEACHER_MARKER, MARKERS = "s", tuple("o^vDPX*<>phd8")


def subplots(rows: int, width: float, height: float, columns: int = 1, **options):
    """A figure of so many inches, and its panels, by default one below the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def save(figure, *paths: Path) -> Path:
    """Writes a file for each path, by its ending, whole or not at all; forgets the figure.

    Returns:
        The first path.
    """
    from matplotlib import pyplot, rc_context

    for path in paths:
        kind = path.suffix.lstrip(".")
        undated = {"metadata": {"Date": None}} if kind == "svg" else {}
        with atomic_path(path) as temporary, rc_context({"svg.hashsalt": path.name}):
            figure.savefig(temporary, dpi=DOTS_PER_INCH, format=kind, **undated)
    pyplot.close(figure)
    return paths[0]


def bars(rates: Sequence[float], intervals: Sequence[Sequence[float]]) -> list[list[float]]:
    """How far error bars reach below and above, which rounding may make negative by a hair."""
    both = list(zip(rates, intervals, strict=True))
    below = [max(0.0, rate - interval[0]) for rate, interval in both]
    return [below, [max(0.0, interval[1] - rate) for rate, interval in both]]


def plot_widths(name: str, sites: Sequence[SiteWidth], path: Path) -> Path:
    """Heat maps of the share kept: the blocks by kind, and the front-end's channels above.

    A model of several stacks, such as Whisper's encoder and decoder, gets a map of each.

    Args:
        name: the system's.
        sites: what it keeps.
        path: the PNG to write.
    """
    grids = width_grids(sites)
    heights = [0.5 + len(grid) for grid in grids]
    figure, panels = subplots(
        len(grids),
        8,
        1.6 + 0.42 * sum(heights),
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    for panel, grid in zip(panels[:, 0], grids, strict=True):
        image = _heat_map(panel, grid)
    panels[0, 0].set_title(f"{name}: units kept")
    figure.colorbar(image, ax=panels[:, 0].tolist(), label="share kept")
    return save(figure, path)


def width_grids(sites: Sequence[SiteWidth]) -> list[dict[str, dict[str, SiteWidth]]]:
    """Units by row and column: of the front-end, then of each stack of blocks.

    Branches and blocks as wholes are left out: their units tell. An empty grid where no site is.
    """
    grids: dict[str, dict[str, dict[str, SiteWidth]]] = {}
    for site in sorted(sites, key=lambda site: site.block is not None):
        stack, row, units = place_of(site.name)
        column = " ".join(units).replace("_", " ")
        if site.block is None:
            stack = row = FRONT_END
            column = f"channels of convolution {site.name.rpartition('.')[2]}"
        elif len(units) < 2:
            continue
        grids.setdefault(stack, {}).setdefault(row, {})[column] = site
    return list(grids.values()) or [{"": {}}]


def place_of(name: str) -> tuple[str, str, list[str]]:
    """Stack and row of a site in a block, and which of the row's units it has.

    ``[STACK.]block.INDEX[.BRANCH[.UNITS]]``; of a transducer's networks, which are one row,
    ``decoder.NETWORK[.INDEX].units``.
    """
    stack, block, rest = name.rpartition("block.")
    first, *units = rest.split(".")
    row = f"{stack}{block}{first}".replace(".", " ")
    return stack if block else row, row, units


def _heat_map(axes, grid: Mapping[str, Mapping[str, SiteWidth]]):
    import numpy

    columns = list(dict.fromkeys(column for row in grid.values() for column in row))
    shares = numpy.full((len(grid), max(1, len(columns))), numpy.nan)
    for i, row in enumerate(grid.values()):
        for j, column in enumerate(columns):
            if column in row:
                site = row[column]
                shares[i, j] = site.kept / site.units
                dark = shares[i, j] > 0.7
                text = f"{site.kept}/{site.units}"
                color = "white" if dark else "black"
                axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="YlGn", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(grid)), list(grid), fontsize=8)
    return image


def plot_training(name: str, columns: Mapping[str, Sequence[float]], path: Path) -> Path:
    """One system's pruning stage: sparsities, multipliers and losses over the updates.

    Args:
        name: the system's.
        columns: columns of progress.csv; those that are missing aren't drawn.
        path: the PNG to write.
    """
    losses = [key for key in columns if key.startswith("loss")]
    figure, (upper, middle, lower) = subplots(3, 8, 9, sharex=True)
    for key, style in SPARSITIES.items():
        _line(upper, columns, key, style, color="black" if style == ":" else None)
    for axes, keys in ((middle, MULTIPLIERS), (lower, losses)):
        for index, key in enumerate(keys):
            _line(axes, columns, key, STYLES[index % len(STYLES)])
    upper.set_title(f"{name}: the pruning stage")
    upper.set_ylabel("sparsity")
    middle.set_ylabel("multiplier")
    lower.set_ylabel("loss")
    lower.set_yscale("symlog", linthresh=0.1)
    lower.set_xlabel("update")
    for axes in (upper, middle, lower):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7, ncols=2)
        else:
            axes.text(0.5, 0.5, "not recorded", ha="center", transform=axes.transAxes)
    return save(figure, path)


def _line(axes, columns: Mapping, key: str, style: str = "-", color: str | None = None) -> None:
    if key in columns:
        updates = range(1, len(columns[key]) + 1)  # the column of this name begins anew each epoch
        label = key.replace("_", " ")
        axes.plot(updates, columns[key], style, color=color, label=label, linewidth=1)


def plot_wer_against_size(systems: Sequence[tuple[str, dict]], key: str, path: Path) -> Path | None:
    """WER with its interval against the encoder's parameters, a colour and a marker a method.

    Where any system's decoder was pruned too, against those of the whole model.

    Args:
        systems: names and entries of the reports.
        key: ``<set>/<mode>``.
        path: the PNG to write.

    Returns:
        The path; None where no system has both a score and a size.
    """
    shown = [s for _, s in systems if s["wer"].get(key) and s["params"]]
    if not shown:
        return None
    figure, axes = subplots(1, 8, 4.5)
    methods = list(dict.fromkeys(system["method"] for system in shown))
    markers = dict(zip([m for m in methods if m != TEACHER], cycle(MARKERS), strict=False))
    part, name = _part_that_differs(shown)
    sizes = [system["params"][part]["kept"] / 1e6 for system in shown]
    for index, (system, size) in enumerate(zip(shown, _side_by_side(sizes), strict=True)):
        score, method = system["wer"][key], system["method"]
        first = all(other["method"] != method for other in shown[:index])
        axes.errorbar(
            size,
            score["wer"],
            bars([score["wer"]], [score["ci95"]]),
            fmt=markers.get(method, TEACHER_MARKER),
            color=COLOURS[methods.index(method) % len(COLOURS)],
            label=str(method) if first else None,
            capsize=3,
        )
        if method == TEACHER:
            axes.axhline(score["wer"], color="gray", linewidth=0.8, linestyle=":")
    counted = "millions, zeros left out" if any(map(prunes_single_weights, shown)) else "millions"
    axes.set_xlabel(f"{name} parameters ({counted}); equal sizes are drawn side by side")
    axes.set_ylabel(f"WER % on {key}, 95% interval")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return save(figure, path)


def _part_that_differs(systems: Sequence[dict]) -> tuple[str, str]:
    """The part of the model whose size tells these systems apart, and its name on an axis."""
    decoders = [system["params"].get("decoder") for system in systems]
    pruned = any(decoder and decoder["kept"] < decoder["dense"] for decoder in decoders)
    return ("total", "model") if pruned else ("encoder", "encoder")


def _side_by_side(sizes: Sequence[float]) -> list[float]:
    """The sizes, those that are nearly equal moved sideways so that they don't hide each other."""
    width = (max(sizes) - min(sizes)) or max(sizes)
    places = [round((size - min(sizes)) / (NEAR * width)) for size in sizes]
    counts, seen = Counter(places), Counter()
    moved = []
    for size, place in zip(sizes, places, strict=True):
        moved.append(size + SIDE_STEP * width * (seen[place] - (counts[place] - 1) / 2))
        seen[place] += 1
    return moved
