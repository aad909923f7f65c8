"""Stage 8: gates on the teacher's copy, masks learned and distilled."""

import argparse
import sys
from collections.abc import Sequence

from espnet_prune.cli import run_main, system_stage


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    return system_stage.get_parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs, goes on, or finds it done."""
    return system_stage.run_stage("prune", get_parser(), argv)


if __name__ == "__main__":
    sys.exit(run_main(main))
