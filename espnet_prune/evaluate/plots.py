"""Plots of a report: kept widths, sparsity over training, WER against size."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_prune.io_atomic import atomic_path


def _figure(width: float, height: float):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")


def _save(figure, path: Path) -> Path:
    from matplotlib import pyplot

    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    pyplot.close(figure)
    return path


def plot_widths(name: str, sites: Mapping[str, tuple[int, int]], path: Path) -> Path:
    """A heat map of the share kept, by block and kind.

    Args:
        name: the system's.
        sites: (kept, units) by site.
        path: the PNG to write.
    """
    import numpy

    groups: dict[str, dict[str, tuple[int, int]]] = {}
    for site, widths in sites.items():
        parts = site.split(".")
        if parts[0] == "front_end":
            groups.setdefault("front-end", {})[f"channels {parts[1]}"] = widths
        elif len(parts) == 4:
            kind = f"{parts[2]} {parts[3]}".replace("_", " ")
            groups.setdefault(f"block {parts[1]}", {})[kind] = widths
    kinds = list(dict.fromkeys(kind for row in groups.values() for kind in row))
    shares = numpy.full((len(groups), len(kinds)), numpy.nan)
    figure, axes = _figure(1.5 + 1.3 * len(kinds), 1.5 + 0.4 * len(groups))
    for i, row in enumerate(groups.values()):
        for j, kind in enumerate(kinds):
            if kind in row:
                kept, units = row[kind]
                shares[i, j] = kept / units
                axes.text(j, i, f"{kept}/{units}", ha="center", va="center", fontsize=8)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="YlGn", aspect="auto")
    axes.set_xticks(range(len(kinds)), kinds, rotation=25, ha="right", fontsize=8)
    axes.set_yticks(range(len(groups)), list(groups), fontsize=8)
    axes.set_title(f"{name}: units kept")
    figure.colorbar(image, label="share kept")
    return _save(figure, path)


def plot_sparsity(curves: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> Path:
    """Target, expected and hard sparsity over the updates, and the multipliers below.

    Args:
        curves: by system and quantity.
        path: the PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(
        2, 1, figsize=(8, 6), sharex=True, layout="constrained"
    )
    styles = {"target_sparsity": ":", "expected_sparsity": "-", "hard_sparsity": "--"}
    for number, (name, series) in enumerate(curves.items()):
        color = f"C{number % 10}"
        for key, style in styles.items():
            label = f"{name} {key.removesuffix('_sparsity')}"
            upper.plot(series.get(key, []), style, color=color, label=label, linewidth=1)
        for key, style in (("lambda_linear", "-"), ("lambda_quadratic", "--")):
            lower.plot(series.get(key, []), style, color=color, label=f"{name} {key}", linewidth=1)
    upper.set_ylabel("sparsity")
    lower.set_ylabel("multiplier")
    lower.set_xlabel("update")
    for axes in (upper, lower):
        axes.legend(fontsize=6, ncols=2)
        axes.grid(alpha=0.3)
    return _save(figure, path)


def plot_losses(name: str, losses: Mapping[str, Sequence[float]], path: Path) -> Path:
    """Every part of the loss over the updates of one system."""
    figure, axes = _figure(8, 4)
    for key, values in losses.items():
        axes.plot(values, label=key, linewidth=1)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_xlabel("update")
    axes.set_title(f"{name}: losses of the pruning stage")
    axes.legend(fontsize=7, ncols=2)
    axes.grid(alpha=0.3)
    return _save(figure, path)


def plot_wer_against_size(reports: Sequence[dict], key: str, path: Path) -> Path:
    """WER with its interval against the encoder's parameters, a colour a method.

    Args:
        reports: what ``collect`` made.
        key: ``<set>/<mode>``.
        path: the PNG to write.
    """
    figure, axes = _figure(7, 4.5)
    colors: dict[str, str] = {}
    for report in reports:
        for system in report["systems"]:
            score, params = system["wer"].get(key), system["params"]
            if not score or not params:
                continue
            first = system["method"] not in colors
            color = colors.setdefault(system["method"], f"C{len(colors) % 10}")
            size = params["encoder"]["kept"] / 1e6
            spread = [[score["wer"] - score["ci95"][0]], [score["ci95"][1] - score["wer"]]]
            label = system["method"] if first else None
            axes.errorbar(size, score["wer"], spread, fmt="o", color=color, label=label, capsize=3)
            axes.annotate(
                system["name"],
                (size, score["wer"]),
                fontsize=6,
                xytext=(4, 4),
                textcoords="offset points",
            )
    axes.set_xlabel("encoder parameters (millions)")
    axes.set_ylabel(f"WER % on {key}, 95% interval")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    return _save(figure, path)
