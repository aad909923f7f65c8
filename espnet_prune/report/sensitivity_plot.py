"""Heat map of a sensitivity analysis: a row a block, a column a kind and share of units."""

from collections.abc import Mapping
from pathlib import Path

from espnet_prune.report.plots import FRONT_END, place_of, save, subplots

CHANGES = {"loss": "change of the loss", "wer": "change of WER, points"}
# Below it colours are linear, above it logarithmic: a lost block costs a thousand times a unit.
LINEAR_SHARE = 0.01


def plot_sensitivity(result: Mapping, change: str, path: Path) -> Path:
    """Draws one measure of all sites.

    Args:
        result: result of ``sensitivity``.
        change: ``loss`` or ``wer``.
        path: the PNG to write.

    Returns:
        The path.
    """
    from matplotlib.colors import SymLogNorm

    panels = _grids(result, f"{change}_change")
    values = [value for grid in panels for row in grid.values() for value in row.values()]
    top = max([abs(value) for value in values] + [1e-6])
    norm = SymLogNorm(linthresh=LINEAR_SHARE * top, vmin=-top, vmax=top)
    heights = [1.2 + len(grid) for grid in panels]
    width = 3 + 0.62 * max(len(_columns(grid)) for grid in panels)
    figure, axes = subplots(
        len(panels),
        max(8, width),
        1.4 + 0.36 * sum(heights),
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    for panel, grid in zip(axes[:, 0], panels, strict=True):
        image = _draw(panel, grid, norm)
    axes[0, 0].set_title(f"{CHANGES[change]} without a site or its units of least magnitude")
    figure.colorbar(image, ax=axes[:, 0].tolist(), label=CHANGES[change])
    return save(figure, path)


def _grids(result: Mapping, key: str) -> list[dict]:
    """Values by row and column: of the front-end, and of the blocks of each stack."""
    grids: dict[str, dict[str, dict[str, float]]] = {}
    for name, site in sorted(
        result["sites"].items(), key=lambda item: item[1]["block"] is not None
    ):
        stack, row, units = place_of(name)
        what = " ".join(units) or "block"
        if site["block"] is None:
            stack = row = FRONT_END
            what = name.replace(".", " ")
        for removal in site["removals"]:
            share = f"{removal['removed'] / site['units']:.0%}"
            column = f"{what} {share}".replace("_", " ")
            grids.setdefault(stack, {}).setdefault(row, {})[column] = removal[key]
    return list(grids.values())


def _columns(grid: Mapping[str, Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(column for row in grid.values() for column in row))


def _draw(axes, grid: Mapping[str, Mapping[str, float]], norm):
    import numpy

    columns = _columns(grid)
    cells = numpy.full((len(grid), len(columns)), numpy.nan)
    for i, row in enumerate(grid.values()):
        for column, value in row.items():
            j = columns.index(column)
            cells[i, j] = value
            color = "white" if abs(float(norm(value)) - 0.5) > 0.35 else "black"
            axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=7, color=color)
    image = axes.imshow(cells, norm=norm, cmap="RdBu_r", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, fontsize=7, rotation=45, ha="right")
    axes.set_yticks(range(len(grid)), list(grid), fontsize=8)
    return image
