"""Prints the names of the systems of a recipe's systems.yaml, for the loops of prune.sh."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.bin import run_main
from espnet_prune.errors import ConfigError

TEACHER = "teacher"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=Path, required=True, help="systems.yaml")
    parser.add_argument("--only", help="names to choose, separated by spaces; all by default")
    parser.add_argument(
        "--taken",
        action="store_true",
        help="of these only the ones that are taken from another system's ladder",
    )
    return parser


def system_names(path: Path, only: str | None = None) -> list[str]:
    """Returns the chosen names in their order, all of the file's by default.

    What is taken from another system's ladder comes right after that one; first, where that one
    isn't chosen.

    Raises:
        ConfigError: the file has no systems, or a chosen name is not among them.
    """
    from espnet_prune.config import load_yaml

    systems = load_yaml(path).get("systems")
    if not isinstance(systems, dict) or not systems:
        raise ConfigError(f"{path}: expected the key 'systems' with at least one name: settings")
    names = [str(name) for name in systems]
    if TEACHER in names:
        raise ConfigError(f"{path}: a system can't be called '{TEACHER}', that is the dense model")
    chosen = names if only is None else only.split()
    for name in chosen:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, 1) or names[:1]
            raise ConfigError(f"{path} has no system '{name}'; did you mean '{nearest[0]}'?")
    sources = {name: taken_from(systems[name]) for name in chosen}
    ordered = [name for name in chosen if sources[name] and sources[name] not in sources]
    for name in chosen:
        if not sources[name]:
            ordered += [name, *(other for other in chosen if sources[other] == name)]
    return ordered if len(ordered) == len(chosen) else chosen  # a wrong row is named in stage 8


def taken_from(row: object) -> str | None:
    """The system from whose ladder a row of the file is taken, if it is."""
    return row.get("taken_from") if isinstance(row, dict) else None


def main(argv: Sequence[str] | None = None) -> int:
    from espnet_prune.config import load_yaml

    arguments = get_parser().parse_args(argv)
    names = system_names(arguments.systems, arguments.only)
    if arguments.taken:
        systems = load_yaml(arguments.systems)["systems"]
        names = [name for name in names if taken_from(systems[name])]
    print(*names)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
