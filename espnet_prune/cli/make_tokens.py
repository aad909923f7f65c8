"""Stage 4: the token list, BPE, characters, or a pretrained model's."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="Kaldi text of the training set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tokens")
    parser.add_argument("--type", default="bpe", help="bpe, char or hugging_face")
    parser.add_argument("--tokenizer", help="for hugging_face: the model's name or folder")
    parser.add_argument("--teacher", help="take those of this model, see import_teacher")
    parser.add_argument("--vocab_size", type=int, default=30, help="BPE tokens, <unk> included")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the tokens, unless it is done already."""
    from espnet_prune.data.resume import file_fingerprint
    from espnet_prune.data.tokens import make_tokens
    from espnet_prune.identity import TOKENIZER_FILES, with_contents
    from espnet_prune.stage import OTHER_WORK_DIR, finished, mark_finished, recorded

    args = get_parser().parse_args(argv)
    if args.teacher is not None:
        return _take(args.teacher, args.out)
    config = {
        "text": str(args.text),
        "fingerprint": file_fingerprint(args.text),
        "type": args.type,
    }
    before = recorded(args.out) or {}
    if args.type == "bpe":
        config["vocab_size"] = args.vocab_size
    elif "vocab_size" in before:  # earlier versions recorded it for all, but nothing read it
        config["vocab_size"] = before["vocab_size"]
    if args.tokenizer is not None:
        config["tokenizer"] = args.tokenizer
        config = with_contents(config, args.tokenizer, TOKENIZER_FILES, args.out)
    if not finished(args.out, config, OTHER_WORK_DIR):
        tokens = make_tokens(args.text, args.out, args.type, args.vocab_size, args.tokenizer)
        mark_finished(args.out, config)
        print(f"{args.out}: {len(tokens)} tokens")
    return 0


def _take(teacher: str, out: Path) -> int:
    """The tokens of a model that was trained elsewhere."""
    from espnet_prune.models.origins import open_origin
    from espnet_prune.stage import OTHER_WORK_DIR, finished, mark_finished

    if not finished(out, {"teacher": teacher}, OTHER_WORK_DIR):
        with open_origin(teacher) as origin:
            tokens = origin.write_tokens(out)
        mark_finished(out, {"teacher": teacher})
        print(f"{out}: {len(tokens)} tokens of {teacher}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
