"""The JSON files that stages leave of a system, read so that a report finds in them what it needs.

An object that may be null as a whole, because its stage hasn't run, has all its keys otherwise.
"""

from collections.abc import Iterable
from pathlib import Path

from espnet_prune.errors import DataError
from espnet_prune.export.int8 import ONNX, ONNX_INT8, TORCH
from espnet_prune.io_atomic import read_json

SCHEMA = 1
AGAIN = "remove it and run its stage again"
COUNTED = ("encoder", "total")  # parts of the model; others may be there
SIZES = ("kept", "dense")
RECORD_NUMBERS = {  # None for all values
    "weights_bytes": SIZES,
    "sparsity": ("kept", "total", "value"),
    "shared": ("seconds", "updates"),
    "masked_equals_cut": ("max_difference",),
    "updates": None,
    "train_seconds": None,
}
TIMES = {"rtf": ("threads", "batch"), "speedup": ("encoder", "predicted")}
MACHINE = ("cpu", "cores", "torch")
SCORE_NUMBERS = ("errors", "words", "wer")


def read_result(path: Path, keys: Iterable[str] = ()) -> dict:
    """A JSON file of a stage: an object of this schema with the given keys.

    Raises:
        DataError: it isn't; names the file and what is wrong.
    """
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise DataError(f'{path}: an object with "schema": {SCHEMA} was expected; {AGAIN}')
    missing = [key for key in keys if key not in value]
    if missing:
        raise DataError(f"{path}: it lacks {', '.join(missing)}; {AGAIN}")
    return value


def read_record(path: Path) -> dict:
    """A system.json.

    Raises:
        DataError: it isn't what stages write; names the file and what is wrong.
    """
    record = read_result(path, ("name",))
    for name, keys in RECORD_NUMBERS.items():
        _check_numbers(path, name, record.get(name), keys)
    params = record.get("params")
    _check_object(path, "params", params, COUNTED)
    for part, counted in (params or {}).items():
        _check_numbers(path, f"params: {part}", counted, SIZES)
    return record


def read_profile(path: Path) -> dict:
    """A profile.json.

    Raises:
        DataError: it isn't what stage 12 writes; names the file and what is wrong.
    """
    profile = read_result(path, ("macs_per_second", *TIMES))
    if profile["macs_per_second"] is not None:
        _check_numbers(path, "profile", profile, ("macs_per_second",))
    for name, keys in TIMES.items():
        _check_object(path, name, profile[name], keys)
        _check_numbers(path, name, _steady(profile[name]))
    _check_object(path, "machine", profile.get("machine"), MACHINE)
    int8 = profile.get("int8")
    _check_object(path, "int8", int8, (TORCH, ONNX, ONNX_INT8))
    for part, measured in (int8 or {}).items():
        _check_object(path, f"int8: {part}", measured, ("bytes", *TIMES))
        _check_numbers(path, f"int8: {part}", measured, ("bytes",))
        for name in TIMES if measured is not None else ():
            _check_numbers(path, f"int8: {part}: {name}", _steady(measured[name]))
    return profile


def _steady(times: object) -> object:
    """Without what is None because the machine was busy."""
    if not isinstance(times, dict):
        return times
    return {name: value for name, value in times.items() if value is not None}


def read_score(path: Path) -> dict:
    """A score.json.

    Raises:
        DataError: it isn't what stage 11 writes; names the file and what is wrong.
    """
    score = read_result(path, (*SCORE_NUMBERS, "ci95"))
    _check_numbers(path, "score", score, SCORE_NUMBERS)
    ends = score["ci95"]
    if not isinstance(ends, list) or len(ends) != 2 or not all(map(_is_number, ends)):
        raise DataError(f"{path}: ci95 is {ends!r}, two numbers were expected; {AGAIN}")
    _check_numbers(path, "p_vs", score.get("p_vs"))
    return score


def _check_object(path: Path, name: str, value: object, keys: Iterable[str]) -> None:
    """DataError unless it is null, or an object that has the keys."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise DataError(f"{path}: {name} is {value!r}, an object was expected; {AGAIN}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise DataError(f"{path}: {name} lacks {', '.join(missing)}; {AGAIN}")


def _check_numbers(path: Path, name: str, value: object, keys: Iterable[str] | None = None) -> None:
    """DataError unless it is null, or an object whose values of the keys, or all, are numbers."""
    _check_object(path, name, value, keys or ())
    if value is None:
        return
    for key in value if keys is None else keys:
        if not _is_number(value[key]):
            raise DataError(f"{path}: {name}: {key} is {value[key]!r}, not a number; {AGAIN}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))
