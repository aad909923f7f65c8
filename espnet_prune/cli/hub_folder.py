"""A system as a folder for Hugging Face's hub, its card filled from the experiment's records."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", type=Path, required=True, help="exp/TAG/SYSTEM")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--name", help="of the model in its card; default: the system's")
    parser.add_argument("--license", help="as the hub abbreviates it, such as apache-2.0")
    parser.add_argument("--language", nargs="+", default=[], help="codes, such as en")
    parser.add_argument("--dataset", help="its name on the hub")
    parser.add_argument("--corpus", help="its name in words; default: that of the report")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the folder."""
    from espnet_prune.report.card import CardOptions
    from espnet_prune.report.hub import write_hub_folder

    args = get_parser().parse_args(argv)
    languages = tuple(args.language)
    options = CardOptions(args.name, args.license, languages, args.dataset, args.corpus)
    card = write_hub_folder(args.system, args.out, options)
    size = sum(path.stat().st_size for path in args.out.iterdir() if path.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB; read {card} before it is uploaded")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
