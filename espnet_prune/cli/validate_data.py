"""Checks Kaldi data directories and every recording in them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--sample_rate", type=int, default=16000, help="expected, in Hz")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Validates and says what each directory holds."""
    from espnet_prune.data.kaldi_dir import validate

    args = get_parser().parse_args(argv)
    for folder in args.folders:
        data, seconds = validate(folder, args.sample_rate)
        words = sum(len(text.split()) for text in data.texts.values())
        speakers = len(set(data.speakers.values()))
        print(
            f"{folder}: {len(data.texts)} utterances, {speakers} speakers, {words} words, "
            f"{seconds / 60:.1f} min"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
