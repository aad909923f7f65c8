"""Stages 7 and 11: a data folder decoded by CTC greedy, CTC prefix and/or joint search."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main
from espnet_prune.data.parallel import SHARE_HELP


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--data", type=Path, required=True, help="dump folder")
    parser.add_argument("--config", type=Path, required=True, help="decode.yaml")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument("--part", help=SHARE_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Decodes, or goes on, or finds it done."""
    from espnet_prune.config import load_yaml, to_dataclass
    from espnet_prune.data.parallel import Share
    from espnet_prune.decode.decoding import DecodeConfig, decode

    args = get_parser().parse_args(argv)
    config = to_dataclass(DecodeConfig, load_yaml(args.config), str(args.config))
    share = Share.parse(args.part) if args.part else None
    decode(args.model, args.data, config, args.out, args.nj, share)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
