"""Leaves out of Kaldi data directories what can't be used, and lists it in left_out.txt."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.bin import run_main
from espnet_prune.data.options import add_reading_options, reading_of

logger = logging.getLogger(__name__)
SHOWN = 10


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    add_reading_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Fixes each directory where it is; its lists as they were stay in DIR/.backup."""
    from espnet_prune.data.fix import LEFT_OUT, fix_data

    args = get_parser().parse_args(argv)
    for folder in args.folders:
        fixed = fix_data(folder, reading_of(args), args.nj)
        for name, reason in list(fixed.left_out.items())[:SHOWN]:
            logger.warning("%s: left out '%s': %s", folder, name, reason)
        print(
            f"{folder}: {fixed.kept} utterances are left, {len(fixed.left_out)} lines left out "
            f"({folder / LEFT_OUT}), {fixed.cleaned} texts without invisible characters now"
            if fixed.left_out or fixed.cleaned
            else f"{folder}: {fixed.kept} utterances, nothing is left out"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
