"""Stage 2: a data directory with every utterance at several speeds."""

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
    parser.add_argument("--audio", type=Path, required=True, help="folder of the new recordings")
    parser.add_argument("--factors", type=float, nargs="+", required=True)
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument("--part", help=SHARE_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Perturbs, unless it is done already."""
    from espnet_prune.data.parallel import Share
    from espnet_prune.data.resume import fingerprint
    from espnet_prune.data.speed import perturb_data
    from espnet_prune.stage import OTHER_WORK_DIR, finished, mark_finished

    args = get_parser().parse_args(argv)
    config = {
        "source": str(args.source),
        "fingerprint": fingerprint(args.source),
        "factors": args.factors,
    }
    if not finished(args.out, config, OTHER_WORK_DIR):
        share = Share.parse(args.part) if args.part else None
        data = perturb_data(args.source, args.out, args.audio, args.factors, args.nj, share)
        if share is None:
            mark_finished(args.out, config)
            print(f"{args.out}: {len(data.texts)} utterances")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
