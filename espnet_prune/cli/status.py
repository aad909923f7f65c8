"""What ran, runs or failed in an experiment, with the last lines of the logs of what failed."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", type=Path, metavar="exp/TAG")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the status."""
    from espnet_prune.cluster.status import describe

    print(describe(get_parser().parse_args(argv).experiment))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
