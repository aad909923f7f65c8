"""Stage 9: the masks fixed at the target, the model cut, saved and checked."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--system", type=Path, nargs="+", required=True, help="folders of one or more systems"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Cuts every system that isn't cut already; one process, since ESPnet's import is slow."""
    args = get_parser().parse_args(argv)
    for system in args.system:
        _cut(system)
    return 0


def _cut(system: Path) -> None:
    from espnet_prune.io_atomic import read_json
    from espnet_prune.stage import MARK, finished, mark_finished

    made_by = {"prune": read_json(system / "prune" / MARK)["config"]}
    if finished(system / "cut", made_by):
        return
    from espnet_prune.train.stages import cut_system
    from espnet_prune.train.system import read_record

    difference = cut_system(system)
    mark_finished(system / "cut", made_by)
    record = read_record(system)
    sparsity, size = record["sparsity"], record["weights_bytes"]
    print(
        f"{system.name}: {sparsity['kept']} of {sparsity['total']} prunable "
        f"{sparsity['measure']} kept, sparsity {sparsity['value']:.2%}; masked and cut model "
        f"differ by at most {difference:.1g}; the file of weights has {size['kept']} of "
        f"{size['dense']} bytes"
    )


if __name__ == "__main__":
    sys.exit(run_main(main))
