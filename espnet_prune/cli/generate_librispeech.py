"""A small generated corpus in LibriSpeech's layout, by flite's voices, for --debug."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="gets the folder LibriSpeech")
    parser.add_argument("--config", type=Path, required=True, help="corpus.yaml")
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="parallel jobs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the corpus, unless it is there."""
    from espnet_prune.config import load_yaml, to_dataclass
    from espnet_prune.data import synth
    from espnet_prune.data.librispeech_generated import generate

    args = get_parser().parse_args(argv)
    corpus = to_dataclass(synth.Corpus, load_yaml(args.config), str(args.config))
    generate(corpus, args.out, args.nj, str(args.config))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
