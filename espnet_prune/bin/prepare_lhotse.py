"""Stage 1 for a set of lhotse: cuts.jsonl.gz or Shar as a Kaldi data directory."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.bin import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=Path, required=True, help="a manifest, or a folder of Shar")
    parser.add_argument("--out", type=Path, required=True, help="data directory to make")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares, unless it is done already."""
    from espnet_prune.data.collection import sizes_of
    from espnet_prune.data.lhotse_cuts import collect_cuts
    from espnet_prune.stage import OTHER_WORK_DIR, finished, mark_finished

    args = get_parser().parse_args(argv)
    config = {"cuts": str(args.cuts), "sizes": sizes_of(args.cuts) if args.cuts.exists() else None}
    if not finished(args.out, config, OTHER_WORK_DIR):
        utterances = collect_cuts(args.cuts, args.out)
        mark_finished(args.out, config)
        print(f"{args.out}: {utterances} utterances")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
