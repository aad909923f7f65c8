"""Before stage 1: whether stages 7 and 11 will take decode.yaml, which is read after hours."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.bin import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="decode.yaml")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Reads it.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    from espnet_prune.config import load_yaml, to_dataclass
    from espnet_prune.espnet.decode_config import DecodeConfig

    args = get_parser().parse_args(argv)
    to_dataclass(DecodeConfig, load_yaml(args.config), str(args.config))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
