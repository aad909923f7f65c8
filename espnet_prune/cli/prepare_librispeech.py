"""Stage 1 for LibriSpeech: Kaldi data directories of whole parts or of listed chapters."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--librispeech",
        type=Path,
        help="folder with the parts, such as test-clean; else they are downloaded",
    )
    parser.add_argument("--sets", type=Path, required=True, help="data.yaml: what each set is of")
    parser.add_argument("--out", type=Path, required=True, help="the recipe's data folder")
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="parallel jobs")
    parser.add_argument(
        "--skip_bad", action="store_true", help="leave out what is damaged or missing, and say so"
    )
    parser.add_argument("--mirror", help="download from this URL instead of openslr.org's")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares LibriSpeech, unless it is done already."""
    from espnet_prune.data import librispeech, librispeech_download
    from espnet_prune.data.librispeech_layout import find_root
    from espnet_prune.stage import OTHER_WORK_DIR, finished, mark_finished

    args = get_parser().parse_args(argv)
    corpus = librispeech.read_corpus(args.sets)
    if args.librispeech is None:
        url = (args.mirror or librispeech_download.URL).rstrip("/")
        folder = args.out.parent / "downloads"
        given = librispeech_download.download(corpus.download, folder, url)
    else:
        given = args.librispeech
    root = find_root(given)
    config = {
        "librispeech": str(root),
        "sets": librispeech.describe(corpus),
        "skip_bad": args.skip_bad,
    }
    whole = all((args.out / name / "wav.scp").exists() for name in corpus.sets)
    if not (finished(args.out, config, OTHER_WORK_DIR) and whole):
        librispeech.prepare(root, corpus, args.out, args.nj, args.skip_bad)
        mark_finished(args.out, config)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
