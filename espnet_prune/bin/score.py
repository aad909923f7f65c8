"""Stages 7 and 11: WER with interval, and p against the teacher, of every decoded mode."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_prune.bin import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dump folder, for its text")
    parser.add_argument("--system", type=Path, required=True, help="the system's folder")
    parser.add_argument("--set", required=True, help="name of the set, below <system>/decode")
    parser.add_argument("--teacher", type=Path, help="the teacher's folder, for the p-value")
    return parser


def _hypotheses(path: Path, reference: Mapping[str, str]) -> dict[str, str]:
    """Recognised texts, of the reference's utterances exactly."""
    from espnet_prune.data.kaldi_dir import read_map
    from espnet_prune.errors import DataError
    from espnet_prune.evaluate.wer import check_same_utterances

    if not path.exists():
        raise DataError(f"{path}: no such file; decode this system and set in this mode first")
    texts = read_map(path, empty_values=True)
    check_same_utterances(reference, texts, str(path))
    return texts


def main(argv: Sequence[str] | None = None) -> int:
    """Scores and prints one line a mode."""
    from espnet_prune.data.kaldi_dir import read_map
    from espnet_prune.errors import DataError
    from espnet_prune.evaluate.wer import score
    from espnet_prune.io_atomic import write_json

    args = get_parser().parse_args(argv)
    reference = read_map(args.data / "text")
    folder = args.system / "decode" / args.set
    hypotheses = sorted(folder.glob("*/hyp"))
    if not hypotheses:
        raise DataError(f"{folder}: no <mode>/hyp there; decode this set first")
    for path in hypotheses:
        teacher = None
        if args.teacher is not None:
            theirs = args.teacher / "decode" / args.set / path.parent.name / "hyp"
            teacher = _hypotheses(theirs, reference)
        result = score(reference, _hypotheses(path, reference), teacher)
        write_json(path.parent / "score.json", result.to_json())
        p_value = "" if teacher is None else f", p {result.p_vs_teacher:.3g} against the teacher"
        print(
            f"{args.system.name} {args.set}/{path.parent.name}: {result.wer:.2f}% WER "
            f"({result.errors} of {result.words} words, 95% {result.ci95[0]:.2f} to "
            f"{result.ci95[1]:.2f}{p_value})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
