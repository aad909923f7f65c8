"""Prints the list of chapters of a part of LibriSpeech, for a recipe's data.yaml."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", type=Path, metavar="DIR", help="such as LibriSpeech/dev-clean-2")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the list."""
    from espnet_prune.data.librispeech_layout import write_chapter_list

    print(write_chapter_list(get_parser().parse_args(argv).part), end="")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
