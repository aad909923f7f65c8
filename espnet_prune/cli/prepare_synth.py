"""Stage 1 for the synthetic corpus: Kaldi data directories with speech by flite's voices."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the recipe's data folder")
    parser.add_argument("--config", type=Path, help="corpus.yaml; without it, the defaults")
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="parallel jobs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the corpus."""
    from espnet_prune.config import load_yaml, to_dataclass
    from espnet_prune.data import synth

    args = get_parser().parse_args(argv)
    where = str(args.config or "corpus")
    settings = load_yaml(args.config) if args.config else {}
    corpus = to_dataclass(synth.Corpus, settings, where)
    synth.prepare(corpus, args.out, args.nj, where)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
