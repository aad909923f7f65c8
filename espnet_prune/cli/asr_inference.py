"""ESPnet's own asr_inference for cut models: registers their encoder class, then hands over.

The command line is that of ``python -m espnet2.bin.asr_inference``.
"""

import argparse
import sys
from collections.abc import Sequence


def printable_help(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser, in whose help texts a per cent sign that argparse can't expand stands for one."""
    formatter = parser._get_formatter()
    for action in parser._actions:
        try:
            formatter._expand_help(action)
        except (ValueError, TypeError, KeyError):
            action.help = action.help and action.help.replace("%", "%%")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs espnet2.bin.asr_inference."""
    from espnet_prune.models.espnet.registry import register

    register()  # before ESPnet's tasks are imported
    from espnet2.bin import asr_inference

    own_parser = asr_inference.get_parser
    asr_inference.get_parser = lambda: printable_help(own_parser())
    asr_inference.main(None if argv is None else list(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
