"""Whisper from a CTranslate2 folder (as of faster-whisper) to a folder of transformers."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.bin import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder",
        type=Path,
        help="holds model.bin in float16 or float32, config.json, tokenizer.json",
    )
    parser.add_argument("out", type=Path, help="the folder to make, for from_pretrained")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Converts the model."""
    from espnet_prune.export.folder import new_folder
    from espnet_prune.hf.whisper_ct2 import convert_whisper

    args = get_parser().parse_args(argv)
    with new_folder(args.out) as folder:
        model = convert_whisper(args.folder, folder)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{args.out}: {parameters} parameters in float32")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
