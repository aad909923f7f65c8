"""A saved model as ONNX, checked against torch at three lengths."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a folder of espnet_prune.save")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--int8", action="store_true", help="weights of matrix products in 8 bits")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exports the model."""
    import espnet_prune
    from espnet_prune.export.folder import DESCRIPTION
    from espnet_prune.export.onnx import export_onnx
    from espnet_prune.io_atomic import read_json

    args = get_parser().parse_args(argv)
    differences = export_onnx(espnet_prune.load(args.model), args.out, args.int8)
    worst = max(differences.values())
    size = sum(path.stat().st_size for path in args.out.glob("*.onnx*")) / 1e6
    print(
        f"{args.out}: {size:.1f} MB; ONNX Runtime and torch differ by at most {worst:.1g} at "
        f"{len(differences)} inputs"
    )
    if args.int8:
        changed = max(read_json(args.out / DESCRIPTION)["int8_difference"].values())
        print(f"then int8 changes an output by up to {changed:.2g}; compare the WER")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
