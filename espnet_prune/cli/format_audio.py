"""Stage 3: recordings in one format and rate, utterances of odd length left out."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main
from espnet_prune.data.parallel import SHARE_HELP


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="data directory")
    parser.add_argument("--out", type=Path, required=True, help="data directory to make")
    parser.add_argument("--sample_rate", type=int, default=16000, help="expected, in Hz")
    parser.add_argument("--format", default="flac", help="flac, ark or keep")
    parser.add_argument("--min_seconds", type=float, default=0.0)
    parser.add_argument("--max_seconds", type=float, default=float("inf"))
    parser.add_argument("--text_case", default="keep", help="keep, lower or upper")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument("--part", help=SHARE_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Formats, unless it is done already."""
    from espnet_prune.data.format import format_data
    from espnet_prune.data.parallel import Share
    from espnet_prune.data.resume import fingerprint
    from espnet_prune.stage import OTHER_WORK_DIR, finished, mark_finished

    args = get_parser().parse_args(argv)
    options = ("sample_rate", "format", "min_seconds", "max_seconds")
    config = {
        "source": str(args.source),
        "fingerprint": fingerprint(args.source),
        **{name: getattr(args, name) for name in options},
    }
    if args.text_case != "keep":
        config["text_case"] = args.text_case
    if not finished(args.out, config, OTHER_WORK_DIR):
        values = (args.sample_rate, args.format, args.min_seconds, args.max_seconds)
        share = Share.parse(args.part) if args.part else None
        counts = format_data(
            args.source, args.out, *values, jobs=args.nj, share=share, text_case=args.text_case
        )
        if counts is not None:
            mark_finished(args.out, config)
            print(f"{args.out}: {counts[0]} utterances, {counts[1]} left out by length")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
