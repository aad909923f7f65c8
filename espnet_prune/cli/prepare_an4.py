"""Stage 1 for AN4: Kaldi data directories train_nodev, dev and test."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--an4", type=Path, help="folder with etc/ and wav/; else downloaded")
    parser.add_argument("--out", type=Path, required=True, help="the recipe's data folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares AN4."""
    from espnet_prune.data import an4

    args = get_parser().parse_args(argv)
    root = args.an4 or an4.download(args.out.parent / "downloads")
    an4.prepare(root, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
