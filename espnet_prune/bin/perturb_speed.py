"""Stage 2: a data directory that names every utterance at several speeds; no audio is copied."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.bin import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="data directory")
    parser.add_argument("--out", type=Path, required=True, help="data directory to make")
    parser.add_argument("--factors", type=float, nargs="+", required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Perturbs, unless it is done already."""
    from espnet_prune.data.perturbed import perturb_data
    from espnet_prune.data.resume import fingerprint
    from espnet_prune.stage import OTHER_WORK_DIR, finished, mark_finished

    args = get_parser().parse_args(argv)
    config = {
        "source": str(args.source),
        "fingerprint": fingerprint(args.source),
        "factors": args.factors,
    }
    if not finished(args.out, config, OTHER_WORK_DIR):
        data = perturb_data(args.source, args.out, args.factors)
        mark_finished(args.out, config)
        print(f"{args.out}: {len(data.texts)} utterances")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
