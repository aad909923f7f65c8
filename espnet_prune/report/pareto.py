"""Which systems are worth their size: WER against parameters, speed and real-time factor.

A system is on the Pareto front of a chart if no other one is at least as good in both and better
in one. The fronts are those of the measured values; that intervals overlap is seen in the figure
only, so a neighbour of the front may be as good. WER of an int8 mode is drawn against times of int8
alone, by the runtime that decoded; where they weren't measured, there is no chart of them.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from espnet_prune.errors import DataError
from espnet_prune.export.int8 import INT8_MODES, ONNX_INT8, TORCH, base_mode, by_onnx
from espnet_prune.report.collect import TEACHER, collect, own_settings
from espnet_prune.report.group_names import common_name, told_apart
from espnet_prune.report.report import UNNAMED, distinguishing_names
from espnet_prune.report.text_table import Line, named_systems, wer_keys

# the measurement that belongs to a search's WER; the encoder's alone for the others
TIMED_MODES = {"greedy": "ctc_greedy", "joint": "joint"}
ENCODER = "encoder"


@dataclass(frozen=True)
class Axis:
    """What WER is drawn against.

    Attributes:
        name: in JSON.
        label: in the figure, by decoding mode.
        more_is_better: as of a speed-up.
        value: gives the value of a report's system and a decoding mode; None where it wasn't
            measured.
        of_one_machine: whether values of two machines can't be compared.
    """

    name: str
    label: Callable[[str], str]
    more_is_better: bool
    value: Callable[[dict, str], float | None]
    of_one_machine: bool = False


def _kept(system: dict, mode: str) -> float | None:
    """A number, not bytes: int8 changes none of it."""
    return system["params"] and system["params"]["total"]["kept"] / 1e6


def _kept_label(mode: str) -> str:
    return "parameters of the model, millions"


def _megabytes(system: dict, mode: str) -> float | None:
    """Of what was saved; an int8 mode rounds that in memory."""
    size = None if mode in INT8_MODES else system["weights_bytes"]
    return size and size["kept"] / 1e6


def _megabytes_label(mode: str) -> str:
    return "file of the weights, MB"


def _speedups(system: dict, mode: str) -> Mapping[str, float]:
    """Over the dense model in fp32, in the mode's own precision and runtime; by measurement."""
    part = system
    if mode in INT8_MODES:
        part = (system["int8"] or {}).get(ONNX_INT8 if by_onnx(mode) else TORCH) or {}
    return part.get("speedup") or {}


def _encoder_speedup(system: dict, mode: str) -> float | None:
    return _speedups(system, mode).get(ENCODER)


def _encoder_speedup_label(mode: str) -> str:
    label = "speed-up of the encoder"
    return f"{label} in int8 over\nthe dense model's in fp32" if mode in INT8_MODES else label


def _timed(mode: str) -> str:
    return TIMED_MODES.get(base_mode(mode), ENCODER)


def _rtf(system: dict, mode: str) -> float | None:
    """The dense model's own, over the speed-up, which was measured beside it in one run.

    Real-time factors of two runs differ by more than two sizes do. Also of int8 the dense model in
    fp32 is what was measured beside it, so the teacher in int8 has a speed-up too.
    """
    dense = (system["dense_rtf"] or {}).get(_timed(mode))
    itself = system["method"] == TEACHER and mode not in INT8_MODES
    speedup = 1.0 if itself else _speedups(system, mode).get(_timed(mode))
    return dense and speedup and dense / speedup


def _rtf_label(mode: str) -> str:
    label = "real-time factor"
    if _timed(mode) == ENCODER:
        label += " of the encoder"
    if mode not in INT8_MODES:
        return f"{label}:\nthe dense model's, over the speed-up"
    runtime = "ONNX Runtime" if by_onnx(mode) else "torch"
    return f"{label} in int8 by {runtime}:\nthe dense model's in fp32, over the speed-up"


AXES = (
    Axis("parameters_millions", _kept_label, False, _kept),
    Axis("file_megabytes", _megabytes_label, False, _megabytes),
    Axis("encoder_speedup", _encoder_speedup_label, True, _encoder_speedup),
    Axis("rtf", _rtf_label, False, _rtf, True),
)


@dataclass(frozen=True)
class Curve:
    """Systems that differ in size alone.

    Attributes:
        label: what their names begin with, and the method.
        method: their method.
        systems: their names.
        train_seconds: seconds of training of all of them together, what they share counted once;
            None if unknown.
        updates: number of updates of all of them together, likewise.
    """

    label: str
    method: str
    systems: tuple[str, ...]
    train_seconds: float | None
    updates: int


@dataclass(frozen=True)
class Point:
    """One system of a chart.

    Attributes:
        system: its name.
        curve: label of its curve.
        seed: points of one curve are joined by seed.
        x: its value on the axis.
        wer: in percent.
        ci95: its interval.
        on_front: whether no other system of the chart beats it; None where values of several
            machines can't be compared.
    """

    system: str
    curve: str
    seed: int | None
    x: float
    wer: float
    ci95: tuple[float, float]
    on_front: bool | None


@dataclass(frozen=True)
class Chart:
    """All systems of one set and decoding mode against one axis.

    Attributes:
        axis: what WER is drawn against.
        label: the axis's, in this mode.
        points: the systems.
    """

    axis: Axis
    label: str
    points: tuple[Point, ...]


def read_systems(experiments: Sequence[Path]) -> list[Line]:
    """Names and reports' entries of all systems of one experiment or of several.

    Each entry has ``dense_rtf`` besides, the real-time factors of its experiment's teacher.

    Raises:
        DataError: an experiment has no system or is given twice, or a file is damaged.
    """
    reports = [collect(folder, UNNAMED) for folder in experiments]
    for report, label in zip(reports, distinguishing_names(experiments), strict=True):
        report["experiment"] = label
        dense = [system["rtf"] for system in report["systems"] if system["method"] == TEACHER]
        for system in report["systems"]:
            system["dense_rtf"] = dense[0] if dense else None
    return named_systems(reports)


def charts(lines: Sequence[Line], curves: Sequence[Curve]) -> dict[str, list[Chart]]:
    """By ``<set>/<mode>``, a chart for each axis that some system has a value on.

    Args:
        lines: names and entries.
        curves: curves of the same systems.

    Raises:
        DataError: nothing is scored; or a set isn't the same in two experiments.
    """
    keys = wer_keys([system for _, system in lines])
    if not keys:
        raise DataError(f"{lines[0][0]} and the others: no scores; run stage 11 (score) first")
    labels = {name: curve.label for curve in curves for name in curve.systems}
    found = {}
    for key in keys:
        _check_one_set(key, lines)
        drawn = [_chart(axis, key, lines, labels) for axis in AXES]
        found[key] = [chart for chart in drawn if chart.points]
    return {key: drawn for key, drawn in found.items() if drawn}


def _check_one_set(key: str, lines: Sequence[Line]) -> None:
    words = {s["wer"][key]["words"]: name for name, s in lines if key in s["wer"]}
    if len(words) > 1:
        (one, first), (other, second), *_ = words.items()
        raise DataError(
            f"{key}: {first} was scored on {one} words and {second} on {other}, so these are two "
            "sets; give experiments of one corpus"
        )


def _chart(axis: Axis, key: str, lines: Sequence[Line], labels: Mapping[str, str]) -> Chart:
    mode = key.rpartition("/")[2]
    shown = [
        (name, system, x)
        for name, system in lines
        if key in system["wer"] and (x := axis.value(system, mode)) is not None
    ]
    machines = {_conditions(system) for _, system, _ in shown}
    front = None
    if not (axis.of_one_machine and len(machines) > 1):
        front = pareto_front([(x, s["wer"][key]["wer"]) for _, s, x in shown], axis.more_is_better)
    return Chart(
        axis,
        axis.label(mode),
        tuple(
            Point(
                system=name,
                curve=labels[name],
                seed=system["seed"],
                x=x,
                wer=system["wer"][key]["wer"],
                ci95=tuple(system["wer"][key]["ci95"]),
                on_front=None if front is None else index in front,
            )
            for index, (name, system, x) in enumerate(shown)
        ),
    )


def _conditions(system: dict) -> str:
    """What times depend on besides the model."""
    rtf = system["rtf"] or {}
    return json.dumps([system["machine"], rtf.get("threads"), rtf.get("batch")], sort_keys=True)


def pareto_front(points: Sequence[tuple[float, float]], more_is_better: bool) -> set[int]:
    """Indices of the points that no other one beats.

    Args:
        points: (x, y); of y less is better.
        more_is_better: whether more of x is; else less.
    """
    signed = [(-x if more_is_better else x, y) for x, y in points]
    return {
        index
        for index, (x, y) in enumerate(signed)
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in signed)
    }


def curves_of(lines: Sequence[Line]) -> list[Curve]:
    """Systems of one experiment, method and settings; what a ladder's run gave is a curve apart."""
    groups: dict[tuple, list[Line]] = defaultdict(list)
    for name, system in lines:
        experiment = name.removesuffix(system["name"])
        run = (system["shared"] or {}).get("system") or (system["ladder"] and system["name"])
        key = (experiment, system["method"], own_settings(system), run)
        groups[key].append((name, system))
    curves = [_curve(members) for members in groups.values()]
    labels = told_apart([curve.label for curve in curves], [curve.systems for curve in curves])
    return [replace(curve, label=label) for curve, label in zip(curves, labels, strict=True)]


def _curve(members: Sequence[Line]) -> Curve:
    names = tuple(name for name, _ in members)
    systems = [system for _, system in members]
    method = str(systems[0]["method"])
    present = {system["name"] for system in systems}
    shared = [s["shared"] for s in systems if s["shared"] and s["shared"]["system"] in present]
    seconds = [system["train_seconds"] for system in systems]
    return Curve(
        label=common_name(names, method),
        method=method,
        systems=names,
        train_seconds=None
        if None in seconds
        else round(sum(seconds) - sum(part["seconds"] for part in shared), 3),
        updates=sum(sum((system["updates"] or {}).values()) for system in systems)
        - sum(part["updates"] for part in shared),
    )
