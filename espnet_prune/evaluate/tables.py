"""The table of a report, for the terminal and for RESULTS.md."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence

NOT_RUN = "not run"
HEADER = (
    "system",
    "prunable params kept",
    "encoder params",
    "sparsity",
    "MMACs/s",
    "speed-up (MACs say)",
    "RTF greedy / joint",
)


def wer_keys(reports: Sequence[dict]) -> list[str]:
    """All ``<set>/<mode>`` of the reports, in order."""
    keys = (key for report in reports for system in report["systems"] for key in system["wer"])
    return list(dict.fromkeys(keys))


def rows(reports: Sequence[dict]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of text; one row a system, one column a set and mode.

    Args:
        reports: what ``collect`` made; several are told apart by their experiment's name.
    """
    keys = wer_keys(reports)
    header = [*HEADER, *(f"WER% {key} [95%] p" for key in keys)]
    body = []
    for report in reports:
        prefix = f"{report['experiment']}/" if len(reports) > 1 else ""
        for system in report["systems"]:
            cells = [prefix + system["name"], *_size(system), *_speed(system)]
            body.append([*cells, *(wer_cell(system["wer"].get(key)) for key in keys)])
    return header, body


def wer_cell(score: dict | None) -> str:
    """``5.17 [3.5, 7.0] p 0.41``."""
    if not score:
        return NOT_RUN
    low, high = score["ci95"]
    text = f"{score['wer']:.2f} [{low:.1f}, {high:.1f}]"
    p_value = score.get("p_vs_teacher")
    return text if p_value is None else f"{text} p {p_value:.3f}"


def _size(system: dict) -> list[str]:
    params = system["params"] or {}
    sizes = []
    for name in ("prunable", "encoder"):
        part = params.get(name)
        dense_only = "-" if name == "prunable" and system["method"] == "teacher" else NOT_RUN
        sizes.append(f"{part['kept']:,} of {part['dense']:,}" if part else dense_only)
    sparsity = system["sparsity"]
    if sparsity:
        sizes.append(f"{100 * sparsity['value']:.2f}% of {sparsity['measure']}")
    else:
        sizes.append("0%" if system["method"] == "teacher" else NOT_RUN)
    return sizes


def _speed(system: dict) -> list[str]:
    macs, rtf, speedup = system["macs_per_second"], system["rtf"], system["speedup"]
    return [
        f"{macs / 1e6:.1f}" if macs is not None else NOT_RUN,
        f"{speedup['encoder']:.2f} ({speedup['predicted']:.2f})" if speedup else NOT_RUN,
        f"{rtf['ctc_greedy']:.4f} / {rtf['joint']:.3f}" if rtf else NOT_RUN,
    ]


def seed_means(reports: Sequence[dict]) -> list[str]:
    """Lines of mean and deviation where one method and target was run with several seeds."""
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for report in reports:
        for system in report["systems"]:
            groups[(report["experiment"], system["method"], system["target"])].append(system)
    lines = []
    for (experiment, method, target), systems in groups.items():
        seeds = {system["seed"] for system in systems}
        if len(seeds) < 2:
            continue
        for key in wer_keys([{"systems": systems}]):
            values = [s["wer"][key]["wer"] for s in systems if key in s["wer"]]
            if len(values) > 1 and not any(map(math.isnan, values)):
                mean, deviation = statistics.mean(values), statistics.stdev(values)
                lines.append(
                    f"{experiment}: {method} at {target:.0%}, {key}: mean {mean:.2f}% WER, "
                    f"standard deviation {deviation:.2f} over {len(values)} seeds"
                )
    return lines


def plain_text(reports: Sequence[dict]) -> str:
    """Two aligned blocks that fit a terminal: sizes and speeds, then word error rates."""
    header, body = rows(reports)
    cut = len(HEADER)
    blocks = [_aligned([header[:cut], *(row[:cut] for row in body)])]
    scored = [[row[0], *row[cut:]] for row in body]
    blocks.append(_aligned([[header[0], *header[cut:]], *scored]))
    return "\n\n".join([*blocks, *seed_means(reports)])


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(text.rstrip() for text in texts)


def markdown(reports: Sequence[dict], command: str) -> str:
    """The text of RESULTS.md."""
    header, body = rows(reports)
    corpora = ", ".join(dict.fromkeys(report["corpus"] for report in reports))
    words = {
        key: system["wer"][key]["words"]
        for report in reports
        for system in report["systems"]
        for key in system["wer"]
    }
    counted = ", ".join(f"{key} {count}" for key, count in words.items())
    lines = [
        f"# Results: {corpora}",
        "",
        f"Made by `{command}`; don't edit. Small data, named for what it is. Words scored: "
        f"{counted}.",
        "WER in percent with its 95% bootstrap interval; p against the uncompressed model by a "
        "matched-pair sign-flip test. Sparsity with its denominator, the prunable part. "
        + _threads(reports),
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in body),
        "",
        *(f"- {line}" for line in seed_means(reports)),
        "",
        "## How each was made",
    ]
    for report in reports:
        for system in report["systems"]:
            lines += ["", f"**{system['name']}** ({_made(system)})", "", "```"]
            lines += [*system["commands"], "```"]
    return "\n".join(lines) + "\n"


def _threads(reports: Sequence[dict]) -> str:
    for report in reports:
        for system in report["systems"]:
            if system["rtf"]:
                rtf, machine = system["rtf"], system["machine"] or {}
                return (
                    f"Times beside the dense model in one run: {rtf['threads']} thread, batch "
                    f"{rtf['batch']}, {machine.get('cpu')}, torch {machine.get('torch')}."
                )
    return "No times were measured."


def _made(system: dict) -> str:
    updates = ", ".join(f"{n} {count}" for n, count in (system["updates"] or {}).items())
    seconds = system["train_seconds"]
    hours = f"{seconds:.0f} s of training" if seconds is not None else NOT_RUN
    made = f"{system['method']}, seed {system['seed']}, updates: {updates}; {hours}"
    return f"{made}; commit {system['commit']}"
