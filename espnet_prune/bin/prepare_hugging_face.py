"""Stage 1 for a data set of Hugging Face on this machine, as a Kaldi data directory."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.bin import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="its folder")
    parser.add_argument("--out", type=Path, required=True, help="data directory to make")
    parser.add_argument("--split", default="train")
    for name, default in (("audio", "audio"), ("text", "text"), ("speaker", None), ("id", None)):
        parser.add_argument(f"--{name}", default=default, help="name of its column")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares, unless it is done already."""
    from espnet_prune.data.collection import sizes_of
    from espnet_prune.data.hugging_face_set import collect_hugging_face
    from espnet_prune.stage import OTHER_WORK_DIR, finished, mark_finished

    args = get_parser().parse_args(argv)
    columns = {name: getattr(args, name) for name in ("audio", "text", "speaker", "id")}
    config = {
        "dataset": str(args.dataset),
        "sizes": sizes_of(args.dataset) if args.dataset.exists() else None,
        "split": args.split,
        **columns,
    }
    if not finished(args.out, config, OTHER_WORK_DIR):
        utterances = collect_hugging_face(args.dataset, args.out, args.split, columns)
        mark_finished(args.out, config)
        print(f"{args.out}: {utterances} utterances")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
