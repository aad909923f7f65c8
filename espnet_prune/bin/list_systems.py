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
    return parser


def system_names(path: Path, only: str | None = None) -> list[str]:
    """Returns the chosen names in their order, all of the file's by default.

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
    if only is None:
        return names
    for name in only.split():
        if name not in names:
            nearest = difflib.get_close_matches(name, names, 1) or names[:1]
            raise ConfigError(f"{path} has no system '{name}'; did you mean '{nearest[0]}'?")
    return only.split()


def main(argv: Sequence[str] | None = None) -> int:
    arguments = get_parser().parse_args(argv)
    print(*system_names(arguments.systems, arguments.only))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
