"""What a report comes to: one sentence on the best pruned model, and a small table for a README."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_prune.errors import DataError
from espnet_prune.report.collect import TEACHER, prunes_single_weights
from espnet_prune.report.text_table import (
    NOT_APPLICABLE,
    NOT_RUN,
    Table,
    in_bytes,
    markdown_table,
    speed_cell,
    wer_keys,
)

SIGNIFICANT = 0.05
HEADER = ["system", "encoder parameters", "file", "WER % [95%]", "p", "speed-up"]


def gained(report: Mapping) -> str | None:
    """One sentence on the pruned model with the fewest errors; None where none is scored yet.

    Args:
        report: what ``collect`` made, of one experiment.
    """
    best, teacher, key, others = _best(report)
    if best is None:
        return None
    return (
        f"{best['name']} makes the fewest errors of {_counted(others)}. "
        f"It {_and([*_sizes(best), *_speed(best), _errors(best, teacher, key)])}."
    )


def next_steps(report: Mapping, experiment: Path) -> list[str]:
    """What may be done with that model, as lines for a terminal; none where there is none yet.

    Args:
        report: what ``collect`` made, of one experiment.
        experiment: its folder.
    """
    best = _best(report)[0]
    if best is None:
        return []
    name, model = best["name"], experiment / best["name"] / "model"
    return [
        "Next:",
        f"  espnet-prune transcribe --model {model} FILE.wav",
        f"  espnet-prune export_onnx --model {model} --out {name}_onnx",
        "A model or a corpus of your own: egs/TEMPLATE/prune1/setup.sh --help",
    ]


def _best(report: Mapping) -> tuple[Mapping | None, Mapping, str, int]:
    """The pruned system of the lowest WER, the teacher, the score compared, how many have one."""
    teachers = [system for system in report["systems"] if system["method"] == TEACHER]
    keys = wer_keys(teachers)
    pruned = [
        system
        for system in report["systems"]
        if system["method"] != TEACHER and system["target"] and keys and keys[-1] in system["wer"]
    ]
    if not pruned:
        return None, {}, "", 0
    key = keys[-1]  # modes sort from greedy to joint, the best one last
    best = min(pruned, key=lambda system: system["wer"][key]["wer"])
    return best, teachers[0], key, len(pruned)


def _counted(number: int) -> str:
    return f"{number} pruned models" if number > 1 else "the one pruned model"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _sizes(system: Mapping) -> list[str]:
    params = system["params"]
    if not params:
        return []
    encoder = params["encoder"]
    share = encoder["kept"] / encoder["dense"]
    return [f"keeps {share:.0%} of the encoder's {encoder['dense'] / 1e6:.1f} million parameters"]


def _speed(system: Mapping) -> list[str]:
    faster = system["speedup"] and system["speedup"]["encoder"]
    if not faster or prunes_single_weights(system):
        return []
    return [f"runs the encoder {faster:.2f} times as fast"]


def _errors(system: Mapping, teacher: Mapping, key: str) -> str:
    own, theirs = system["wer"][key], teacher["wer"][key]
    text = f"has {own['wer']:.1f}% WER on {key} where the teacher has {theirs['wer']:.1f}%"
    p_value = own.get("p_vs_teacher")
    if p_value is None:
        return text
    shown = "a difference" if p_value < SIGNIFICANT else "no difference that can be shown"
    return f"{text} ({shown} by {own['words']:,} words, p {_rounded(p_value)})"


def _rounded(p_value: float) -> str:
    return f"{p_value:.2f}" if p_value >= 0.01 else f"{p_value:.1g}"


def headline_table(report: Mapping, key: str, names: Sequence[str]) -> str:
    """A Markdown table of some systems: size, WER with interval and p, speed.

    Args:
        report: what report.json holds, of one experiment.
        key: ``<set>/<mode>``.
        names: names of the systems, in the table's order.

    Raises:
        DataError: a system or its score isn't in the report.
    """
    systems = {system["name"]: system for system in report["systems"]}
    missing = [name for name in names if key not in systems.get(name, {"wer": {}})["wer"]]
    if missing:
        raise DataError(
            f"report.json: no WER on {key} of {', '.join(missing)}; decode and score them, or name "
            f"systems of {', '.join(systems)}"
        )
    rows = [_row(systems[name], key) for name in names]
    return "\n".join(markdown_table(Table("", HEADER, rows)))


def _row(system: Mapping, key: str) -> list[str]:
    score, size, dense = system["wer"][key], system["weights_bytes"], system["method"] == TEACHER
    part = (system["params"] or {}).get("encoder")
    parameters = f"{(part['dense'] if dense else part['kept']) / 1e6:.1f} M" if part else NOT_RUN
    p_value = score.get("p_vs_teacher")
    low, high = score["ci95"]
    speed = speed_cell(system["speedup"], unit="x")
    return [
        system["name"],
        parameters,
        in_bytes(size["kept"]) if size else NOT_RUN,
        f"{score['wer']:.2f} [{low:.2f}, {high:.2f}]",
        NOT_APPLICABLE if p_value is None else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}",
        "1x" if dense else speed,
    ]
