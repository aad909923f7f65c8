"""The names of a recipe's systems, in the order in which stages make them."""

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_prune.errors import ConfigError

logger = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
RESERVED = ("teacher", "conf", "log", "stats", "report", "pack", "pareto")  # folders of exp/TAG


def system_names(systems: Mapping, path: str, only: str | None = None) -> list[str]:
    """Returns the chosen names in their order, all of the file's by default.

    What is taken from another system's ladder comes right after that one; first, where that one
    isn't chosen.

    Args:
        systems: the rows by name.
        path: path of their file, for errors.
        only: the chosen names, separated by spaces.

    Raises:
        ConfigError: a name that can't be a folder's; a chosen name is not among them, or comes
            twice.
    """
    names = list(systems)
    for name in names:
        _check_name(name, path)
    chosen = names if only is None else only.split()
    for name in chosen:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, 1) or names[:1]
            raise ConfigError(f"{path} has no system '{name}'; did you mean '{nearest[0]}'?")
        if chosen.count(name) > 1:
            raise ConfigError(f"--systems: '{name}' comes twice; name it once")
    sources = {name: taken_from(systems[name]) for name in chosen}
    ordered = [name for name in chosen if sources[name] and sources[name] not in sources]
    for name in chosen:
        if not sources[name]:
            ordered += [name, *(other for other in chosen if sources[other] == name)]
    return ordered if len(ordered) == len(chosen) else chosen  # a wrong row is named in stage 8


def _check_name(name: object, path: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(
            f"{path}: systems: {name!r} is not a folder's name of letters, digits, '.', '_', '-'; "
            "rename it (a number goes in quotes)"
        )
    if name in RESERVED:
        raise ConfigError(
            f"{path}: a system can't be called '{name}', that is another folder of exp/TAG; "
            "rename it"
        )


def taken_from(row: object) -> str | None:
    """The system from whose ladder a row of the file is taken, if it is."""
    source = row.get("taken_from") if isinstance(row, dict) else None
    return source if isinstance(source, str) else None  # reading the row says what is wrong


def compared(names: str, systems: Sequence[str], experiment: Path) -> list[str]:
    """The systems that others are to be compared with.

    Args:
        names: names of ``--compare_with``; ``NAME?`` is left out where it can't be compared with.
        systems: the ones that are made.
        experiment: exp/TAG, where others were decoded before.

    Raises:
        ConfigError: a name is neither made nor decoded already.
    """
    found = []
    for word in names.split():
        name = word.removesuffix("?")
        if name in systems or (experiment / name / "decode").is_dir():
            found.append(name)
        elif name == word:
            raise ConfigError(
                f"--compare_with: '{name}' is not among the systems ({' '.join(systems)}), and "
                f"{experiment / name} holds no decoded one; add it to --systems, or leave it out"
            )
        else:
            logger.info("not compared with %s, which is neither made nor decoded", name)
    return found
