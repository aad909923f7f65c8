"""Stage 10: the cut model trained on, distilled from the uncompressed one."""

import argparse
import sys
from collections.abc import Sequence

from espnet_prune.cli import run_main, system_stage


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    return system_stage.get_parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs, goes on, or finds it done."""
    return system_stage.run_stage("finetune", get_parser(), argv)


if __name__ == "__main__":
    sys.exit(run_main(main))
