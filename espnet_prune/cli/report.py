"""Stage 13: report.json, RESULTS.md, plots and a page, of one experiment or of several."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", type=Path, nargs="+", metavar="exp/TAG")
    parser.add_argument("--corpus", help="its name; by default that of the earlier report")
    parser.add_argument(
        "--out",
        type=Path,
        help="by default report/ in the experiment, or a folder in that of the first of several",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the report and prints its table."""
    from espnet_prune.provenance import command_line
    from espnet_prune.report.report import write_report

    args = get_parser().parse_args(argv)
    text, results, page = write_report(args.experiments, args.corpus, args.out, command_line())
    print(f"{text}\n\nReport: {page.resolve()}\nTable:  {results.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
