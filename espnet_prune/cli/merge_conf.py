"""Writes a recipe's configurations with others merged over those of the same names."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main
from espnet_prune.errors import ConfigError

logger = logging.getLogger(__name__)


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--over", type=Path, required=True, help="folder of what wins")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--config",
        dest="configs",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "FILE", "RESULT"),
        help="one of the recipe's, and what the result is called, without .yaml; several times",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes ``OUT/RESULT.yaml`` for every file that exists; all are read before one is written.

    Raises:
        ConfigError: a file of --over has a name that the recipe lacks, so nothing would read it.
    """
    from espnet_prune.config import dump_yaml, load_yaml, merge, nearest
    from espnet_prune.io_atomic import write_text

    args = get_parser().parse_args(argv)
    own = {name: (Path(file), f"{result}.yaml") for name, file, result in args.configs}
    over = {path.stem: load_yaml(path) for path in sorted(args.over.glob("*.yaml"))}
    if not over:
        raise ConfigError(f"{args.over}: no YAML files are there to merge over the recipe's")
    for name in over.keys() - own.keys():
        raise ConfigError(
            f"{args.over / name}.yaml: the recipe has no configuration '{name}'"
            f"{nearest(name, own)}; choose one of {sorted(own)}"
        )
    merged = {}
    for name, (path, result) in own.items():
        if path.exists():
            base, wins = load_yaml(path), over.get(name, {})
            if name == "systems" and result != "systems.yaml":  # not the recipe's own
                wins = _of_these_systems(base, wins, args.over)
            merged[result] = merge(base, wins)
    for result, values in merged.items():
        write_text(args.out / result, dump_yaml(values))
    return 0


def _of_these_systems(base: dict, over: dict, folder: Path) -> dict:
    """Without rows that only change a system which another file of systems doesn't have."""
    rows = over.get("systems")
    if not isinstance(rows, dict):
        return over
    there = base.get("systems") or {}
    whole = {"method", "taken_from"}
    changes = [
        name
        for name, row in rows.items()
        if name not in there and isinstance(row, dict) and not whole & row.keys()
    ]
    if changes:
        logger.info(
            "%s/systems.yaml: left out what it changes of systems that there aren't: %s",
            folder,
            ", ".join(map(str, changes)),
        )
    return {**over, "systems": {n: row for n, row in rows.items() if n not in changes}}


if __name__ == "__main__":
    sys.exit(run_main(main))
