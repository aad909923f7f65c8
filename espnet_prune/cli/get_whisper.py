"""A Whisper to start from: from the hub, a folder, or, without a name, tiny.en from a package."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--whisper",
        help="name on the hub, folder of save_pretrained or CTranslate2, or random, for tests",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Gets the model, unless it is there already."""
    from espnet_prune.errors import DataError
    from espnet_prune.models.whisper.get_whisper import get_whisper
    from espnet_prune.stage import OTHER_WORK_DIR, finished, mark_finished

    args = get_parser().parse_args(argv)
    config = {"whisper": args.whisper}
    if not finished(args.out, config, OTHER_WORK_DIR):
        if args.out.exists():
            raise DataError(
                f"{args.out}: it exists, but this command didn't make it; move it elsewhere, and "
                "give --whisper its new place to start from it"
            )
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".whisper") as temporary:
            folder = Path(temporary) / "whole"
            get_whisper(args.whisper, folder)
            mark_finished(folder, config)
            folder.rename(args.out)
        print(f"{args.out}: ready")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
