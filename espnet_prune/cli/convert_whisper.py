"""Whisper from a CTranslate2 folder (as of faster-whisper) to a folder of transformers."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import read_json, write_json

# by which a folder is known as made by this command, so that it may make it again
RECORD = "conversion.json"
KIND = {"schema": 1, "kind": "whisper_from_ctranslate2"}


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


def others_than_conversion(folder: Path) -> list[str]:
    """Names of what is in a folder and isn't an earlier conversion's, sorted."""
    names = {path.name for path in folder.glob("*")}
    try:
        record = read_json(folder / RECORD)
    except DataError:
        return sorted(names)
    known = isinstance(record, dict) and {key: record.get(key) for key in KIND} == KIND
    return sorted(names - {RECORD, *record.get("files", ())} if known else names)


def main(argv: Sequence[str] | None = None) -> int:
    """Converts the model."""
    from espnet_prune.export.folder import new_folder
    from espnet_prune.models.whisper.from_ct2 import convert_whisper
    from espnet_prune.sites import count_parameters

    args = get_parser().parse_args(argv)
    with new_folder(args.out, others_than_conversion, "a conversion") as folder:
        model = convert_whisper(args.folder, folder)
        files = sorted(path.name for path in folder.iterdir())
        write_json(folder / RECORD, {**KIND, "files": files})
    print(f"{args.out}: {count_parameters(model)} parameters in float32")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
