"""Stage 14: a pruned model with its record, as one file to carry away, and one for ESPnet."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", type=Path, required=True, help="the system's folder")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="NAME.zip, unzipped for espnet_prune.load; NAME_espnet.zip, which stock ESPnet's "
        "from_pretrained takes, is made beside it, but not of a Whisper",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Packs the model."""
    from espnet_prune.export.pack import is_for_espnet, pack_for_espnet, pack_system

    args = get_parser().parse_args(argv)
    pack_system(args.system, args.out)
    made = [args.out]
    if is_for_espnet(args.system):
        made.append(args.out.with_name(f"{args.out.stem}_espnet.zip"))
        pack_for_espnet(args.system, made[-1])
    for path in made:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
