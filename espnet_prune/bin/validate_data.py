"""Stage 1: checks Kaldi data directories, and every recording in them to its last sample."""

import argparse
import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.bin import run_main
from espnet_prune.data.options import add_reading_options, reading_of

logger = logging.getLogger(__name__)
MARK = ".valid.json"


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    add_reading_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Validates, unless the same data were found valid before, and says what they hold."""
    args = get_parser().parse_args(argv)
    for folder in args.folders:
        holding = _validated(folder, args)
        for note in holding.notes:
            logger.warning("%s: %s", folder, note)
        print(f"{folder}: {holding}")
    return 0


def _validated(folder: Path, args: argparse.Namespace):
    from espnet_prune.data.resume import file_fingerprint, fingerprint
    from espnet_prune.data.validate import Holding, validate
    from espnet_prune.io_atomic import read_json, write_json

    config = {
        "data": fingerprint(folder),
        "speakers": file_fingerprint(folder / "spk2utt"),
        "sample_rate": args.sample_rate,
        "channel": args.channel,
        "pipes": args.pipes,
    }
    mark = folder / MARK
    if mark.exists() and (found := read_json(mark))["config"] == config:
        return Holding(**found["holding"])
    _, holding = validate(folder, reading_of(args), args.nj)
    with contextlib.suppress(OSError):  # a folder that mayn't be written is checked every time
        write_json(mark, {"config": config, "holding": holding.to_json()})
    return holding


if __name__ == "__main__":
    sys.exit(run_main(main))
