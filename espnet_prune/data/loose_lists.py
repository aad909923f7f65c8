"""Kaldi's lists read as far as they can be, with a reason for everything that can't."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from espnet_prune.data.characters import BYTE_ORDER_MARK, invisible_in, name_of
from espnet_prune.errors import DataError


@dataclass
class Loose:
    """What a list holds.

    Attributes:
        values: by key.
        dropped: a reason by key, or by line where there is none.
    """

    values: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


def read_loosely(path: Path, check: Callable[[str], None] = lambda key: None) -> Loose:
    """Reads one Kaldi file of ``key value`` lines, in whatever order.

    Args:
        path: the file.
        check: raises DataError for a key that can't be used.

    Raises:
        DataError: there is no such file.
    """
    try:
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; run stage 1, or make it") from error
    found = Loose()
    for number, line in enumerate(lines, 1):
        place = f"{path.name}:{number}"
        try:
            text = line.decode().removeprefix(BYTE_ORDER_MARK)
        except UnicodeDecodeError:
            found.dropped[place] = "it is not UTF-8"
            continue
        key, value = (*text.split(None, 1), "", "")[:2]
        if not key:
            continue  # an empty line holds nothing to be lost
        reason = _wrong_with(key, value.strip(), found, path.name, check)
        if reason:
            found.values.pop(key, None)
            found.dropped[key] = reason
        elif key not in found.dropped:
            found.values[key] = value.strip()
    return found


def _wrong_with(key: str, value: str, found: Loose, name: str, check: Callable[[str], None]) -> str:
    hidden = invisible_in(key, joiners=True)
    if hidden:
        return f"its ID in {name} has an invisible character, {name_of(hidden[0])}"
    if not value:
        return f"it has no value in {name}"
    if found.values.get(key, value) != value:
        return f"it comes twice in {name}, with different values"
    try:
        check(key)
    except DataError as error:
        return str(error)
    return ""
