"""Stage 9: the masks fixed at the target, the model cut, saved and checked."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.bin import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", type=Path, required=True, help="the system's folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Cuts, unless it is done already."""
    from espnet_prune.io_atomic import read_json
    from espnet_prune.stage import MARK, finished, mark_finished

    args = get_parser().parse_args(argv)
    made_by = {"prune": read_json(args.system / "prune" / MARK)["config"]}
    if finished(args.system / "cut", made_by):
        return 0
    from espnet_prune.espnet.stages import cut_system
    from espnet_prune.espnet.system import read_record

    difference = cut_system(args.system)
    mark_finished(args.system / "cut", made_by)
    sparsity = read_record(args.system)["sparsity"]
    print(
        f"{args.system.name}: {sparsity['kept']} of {sparsity['total']} prunable "
        f"{sparsity['measure']} kept, sparsity {sparsity['value']:.2%}; masked and cut model "
        f"differ by at most {difference:.1g}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
