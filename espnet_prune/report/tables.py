"""The tables of a report, for the terminal, for RESULTS.md and for the page.

Several tables, because one would not fit a terminal: sizes, speeds, int8 where it was measured,
word error rates.
"""

import json
import statistics
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from espnet_prune.report.collect import TEACHER, own_settings, prunes_single_weights
from espnet_prune.report.group_names import common_name, told_apart
from espnet_prune.report.tables_int8 import int8_table
from espnet_prune.report.text_table import (
    NOT_APPLICABLE,
    NOT_RUN,
    TERMINAL_COLUMNS,
    Line,
    Table,
    aligned,
    conditions,
    fit,
    in_bytes,
    markdown_table,
    named_systems,
    rtf_cell,
    speed_cell,
    wer_cell,
    wer_keys,
)

SMALL_TEST_WORDS = 10000
ZEROS_NOTE = (
    "* Single weights: the parameters removed are zeros in tensors of the same shape. Each takes "
    "one bit of the file; the model is not faster."
)
SHARED_NOTE = (
    "In brackets: seconds of a run of stage 8 that gave several sizes, up to this one; they are in "
    "the row of the named system too."
)
PLACE_OF_COMMANDS = "Commands run in the folder that holds exp; $root is the repository."


def tables(reports: Sequence[dict], exact: bool = True) -> list[Table]:
    """Sizes, speeds and word error rates; one row a system, then one a group of seeds.

    Args:
        reports: what ``collect`` made.
        exact: every digit of the sizes, or as short as a terminal needs.
    """
    lines = named_systems(reports)
    return [_sizes(lines, exact), _speeds(lines), *int8_table(lines), _errors(reports, lines)]


def _exact(number: int) -> str:
    return f"{number:,}"


def _short(number: int) -> str:
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.2f}{letter}"
    return str(number)


def _sizes(lines: Sequence[Line], exact: bool) -> Table:
    digits = _exact if exact else _short
    counted = {"prunable": "prunable params", "encoder": "encoder params"}
    if any(_decoder_is_cut(system) for _, system in lines):
        counted["decoder"] = "decoder params"
    counted["total"] = "model params"
    header = ["system", *counted.values(), "file"]
    rows = []
    for name, system in lines:
        params = system["params"] or {}
        parts = [_part(system, params.get(part), digits) for part in counted]
        if prunes_single_weights(system):
            parts = [part if part == NOT_RUN else f"{part} *" for part in parts]
        size = system["weights_bytes"]
        file = _part(system, size, in_bytes) if size else NOT_RUN
        rows.append([name, *parts, file, _sparsity(system), _seconds(system)])
    notes = {
        ZEROS_NOTE: any(prunes_single_weights(system) for _, system in lines),
        SHARED_NOTE: any(system["shared"] for _, system in lines),
    }
    header += ["sparsity reached", "training s"]
    note = " ".join(text for text, needed in notes.items() if needed)
    return Table("Sizes (kept of dense)", header, rows, note)


def _decoder_is_cut(system: dict) -> bool:
    part = (system["params"] or {}).get("decoder")
    return part is not None and part["kept"] < part["dense"]


def _part(system: dict, part: dict | None, digits: Callable[[int], str]) -> str:
    if part:
        return f"{digits(part['kept'])} of {digits(part['dense'])}"
    return NOT_APPLICABLE if system["method"] == TEACHER or system["params"] else NOT_RUN


def _sparsity(system: dict) -> str:
    sparsity, whole = system["sparsity"], (system["params"] or {}).get("total")
    if sparsity:
        reached = f"{100 * sparsity['value']:.2f}% of prunable {sparsity['measure']}"
        gone = f"{100 * (1 - whole['kept'] / whole['dense']):.1f}" if whole else None
        return reached + (f" ({gone}% of the model's)" if gone else "")
    return NOT_APPLICABLE if system["method"] == TEACHER else NOT_RUN


def _seconds(system: dict) -> str:
    seconds, shared = system["train_seconds"], system["shared"]
    if seconds is None:
        return NOT_RUN
    return f"{seconds:.0f}" + (
        f" ({shared['seconds']:.0f} of {shared['system']})" if shared else ""
    )


def _speeds(lines: Sequence[Line]) -> Table:
    header = ["system", "MMACs/s", "speed-up by MACs", "speed-up", "realised/predicted"]
    header += ["RTF encoder", "RTF greedy", "RTF joint"]
    rows = []
    for name, system in lines:
        macs, rtf, speedup = (system[key] for key in ("macs_per_second", "rtf", "speedup"))
        cells = [NOT_RUN if macs is None else f"{macs / 1e6:.1f}"]
        cells += [speed_cell(speedup, part) for part in ("predicted", "encoder")]
        real = speedup and speedup["encoder"]
        cells.append(f"{real / speedup['predicted']:.2f}" if real else cells[-1])
        modes = ("encoder", "ctc_greedy", "joint")
        cells += [rtf_cell(rtf, speedup or {}, mode) for mode in modes] if rtf else [NOT_RUN] * 3
        rows.append([name, *cells])
    return Table(f"Speed of the encoder, and real-time factors ({conditions(lines)})", header, rows)


def machines(reports: Sequence[dict]) -> list[str]:
    """The machines that times were measured on, each once."""
    found = [system["machine"] for _, system in named_systems(reports) if system["machine"]]
    return list(dict.fromkeys(f"{m['cpu']}, {m['cores']} cores, torch {m['torch']}" for m in found))


def _errors(reports: Sequence[dict], lines: Sequence[Line]) -> Table:
    keys = wer_keys([system for _, system in lines])
    rows = [[name, *(wer_cell(system["wer"].get(key)) for key in keys)] for name, system in lines]
    rows += seed_rows(reports, keys)
    return Table("WER % [95% interval], p against the teacher", ["system", *keys], rows)


def seed_rows(reports: Sequence[dict], keys: Sequence[str]) -> list[list[str]]:
    """Mean and deviation over the seeds of one method, target and settings in one experiment."""
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for report in reports:
        prefix = f"{report['experiment']}/" if len(reports) > 1 else ""
        for system in report["systems"]:
            ladder = " of a ladder" if system["shared"] or system["ladder"] else ""
            key = (prefix, system["method"], ladder, system["target"], own_settings(system))
            groups[key].append(system)
    labels, members, rows = [], [], []
    for (prefix, method, ladder, target, _), systems in groups.items():
        seeds = {system["seed"] for system in systems}
        if len(seeds) < 2 or target is None:
            continue
        names = [system["name"] for system in systems]
        name = f"{prefix}{common_name(names, str(method))}{ladder}"
        labels.append(f"{name} at {100 * target:g}%, {len(seeds)} seeds")
        members.append(names)
        rows.append([_mean([s["wer"][k]["wer"] for s in systems if k in s["wer"]]) for k in keys])
    return [[label, *row] for label, row in zip(told_apart(labels, members), rows, strict=True)]


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return NOT_RUN
    spread = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    return f"{spread} (sd of {len(values)})"


def words_line(reports: Sequence[dict]) -> str:
    """How many words each set has, and a warning where they are few."""
    words: dict[str, int] = {}
    for report in reports:
        for system in report["systems"]:
            for key, score in system["wer"].items():
                name = f"{report['corpus']} {key.rpartition('/')[0]}"
                words.setdefault(name, score["words"])
    if not words:
        return "Nothing has been scored yet."
    text = "Words scored: " + ", ".join(f"{name} {count:,}" for name, count in words.items()) + "."
    for how in dict.fromkeys(_normalisations(reports)):
        text += f" Texts, references too, were normalised by {how}."
    if min(words.values()) >= SMALL_TEST_WORDS:
        return text
    return (
        f"{text} These are results on small data: what the intervals don't separate is no result."
    )


def _normalisations(reports: Sequence[dict]) -> Iterator[str]:
    for report in reports:
        for system in report["systems"]:
            yield from filter(None, (s.get("normalisation") for s in system["wer"].values()))


def plain_text(reports: Sequence[dict]) -> str:
    """The tables, aligned and no wider than a terminal."""
    blocks = []
    for table in tables(reports, exact=False):
        for part in fit(table):
            text = f"{part.title}\n{aligned([part.header, *part.rows])}"
            note = textwrap.fill(part.note, TERMINAL_COLUMNS)
            blocks.append(f"{text}\n{note}" if note else text)
    return "\n\n".join([*blocks, textwrap.fill(words_line(reports), TERMINAL_COLUMNS)])


def markdown(reports: Sequence[dict], command: str) -> str:
    """The text of RESULTS.md.

    Args:
        reports: what ``collect`` made.
        command: that made it.
    """
    corpora = ", ".join(dict.fromkeys(report["corpus"] for report in reports))
    lines = [
        f"# Results: {corpora}",
        "",
        f"Made by `{command}`; don't edit.",
        words_line(reports),
        explanation(reports),
    ]
    for table in tables(reports):
        lines += ["", f"## {table.title}", "", *markdown_table(table)]
    lines += ["", "## How each was made", "", PLACE_OF_COMMANDS]
    for name, system in named_systems(reports):
        lines += ["", f"**{name}** ({made(system)})", "", "```", *system["commands"], "```"]
    return "\n".join(lines) + "\n"


def explanation(reports: Sequence[dict]) -> str:
    """What the numbers are and how they were measured."""
    scores = [s for _, system in named_systems(reports) for s in system["wer"].values()]
    tools = ", ".join(sorted({str(score["tool"]) for score in scores if score.get("tool")}))
    tests = ", ".join(sorted({str(score["test"]) for score in scores if score.get("test")}))
    text = "WER with its 95% bootstrap interval over utterances"
    text += f" (counted by {tools})" if tools else ""
    text += f"; p against the uncompressed model ({tests})" if tests else ""
    text += ". Sparsity = 1 - kept / prunable, in the measure named beside it."
    places = "; ".join(machines(reports))
    if places:
        text += (
            " Times are the least of rounds in which the dense model took as long before the other "
            f"as after it, in one run, on {places}; where other work left none, noisy. Speed-up is "
            "dense time / time, beside what the MACs predict, and in brackets behind a real-time "
            "factor. Real-time factors of two rows are of two runs: compare the speed-ups."
        )
    return text


def made(system: dict) -> str:
    """Method, seed, updates, seconds, settings, commit and check of one system in one line."""
    updates = ", ".join(f"{name} {count}" for name, count in (system["updates"] or {}).items())
    seconds = system["train_seconds"]
    parts = [f"{system['method']}, seed {system['seed']}", f"updates: {updates or NOT_RUN}"]
    parts.append(NOT_RUN if seconds is None else f"{seconds:.0f} s of training")
    if system["sparsity"]:
        sparsity = system["sparsity"]
        kept, total = _exact(sparsity["kept"]), _exact(sparsity["total"])
        parts.append(f"keeps {kept} of {total} prunable {sparsity['measure']}")
        if sparsity.get("expected") is not None:
            parts.append(f"the gates' expected sparsity was {sparsity['expected']:.2%}")
    if system["options"]:
        parts.append(f"options {json.dumps(system['options'])}")
    if system.get("training"):
        parts.append(f"training {json.dumps(system['training'])}")
    if system.get("bits"):
        parts.append(f"weights in {system['bits']} bits")
    if system.get("of"):
        parts.append(f"made of {system['of']}, whose updates and seconds come to these")
    if system["ladder"]:
        parts.append(f"its run also gave the sizes {', '.join(map(str, system['ladder']))}")
    if system["shared"]:
        shared = system["shared"]
        parts.append(
            f"its first {shared['updates']} updates and {shared['seconds']:.0f} s are those of "
            f"{shared['system']}"
        )
    if system["masked_equals_cut"]:
        difference = system["masked_equals_cut"]["max_difference"]
        parts.append(f"masked and cut outputs differ by at most {difference:.1e}")
    return "; ".join([*parts, f"commit {system['commit'] or 'unknown'}"])
