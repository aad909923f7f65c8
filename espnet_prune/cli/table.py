"""A paper's published figures beside ours, from report.json files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paper", required=True, help="P1 or P2, keys of report/published.yaml")
    parser.add_argument("reports", type=Path, nargs="*", metavar="REPORT.json")
    parser.add_argument("--out", type=Path, help="Markdown file to write; else it is printed")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints or writes the table."""
    from espnet_prune.io_atomic import write_text
    from espnet_prune.out_path import check_out_file
    from espnet_prune.provenance import command_line
    from espnet_prune.report.paper_table import paper_table, read_reports

    args = get_parser().parse_args(argv)
    if args.out is not None:
        check_out_file(args.out)
    text = paper_table(args.paper, read_reports(args.reports), command_line())
    if args.out is None:
        print(text, end="")
    else:
        write_text(args.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
