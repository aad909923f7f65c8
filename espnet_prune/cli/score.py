"""Stages 7 and 11: WER with interval, and p against the teacher, of every decoded mode.

With ``--compare_with`` also p against other systems, which must have been decoded. What was
decoded in int8 is compared with the others in floating point.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dump folder, for its text")
    parser.add_argument("--system", type=Path, required=True, help="the system's folder")
    parser.add_argument("--set", required=True, help="name of the set, below <system>/decode")
    parser.add_argument("--teacher", type=Path, help="the teacher's folder, for the p-value")
    parser.add_argument(
        "--compare_with", type=Path, nargs="+", default=[], help="other systems' folders, for more"
    )
    parser.add_argument(
        "--normalise", choices=["none", "english"], default="none", help="texts before they count"
    )
    return parser


def _hypotheses(path: Path, reference: Mapping[str, str], normalise: str) -> dict[str, str]:
    """Recognised texts, of the reference's utterances exactly, normalised."""
    from espnet_prune.data.kaldi_dir import read_map
    from espnet_prune.errors import DataError
    from espnet_prune.score.wer import check_same_utterances

    if not path.exists():
        raise DataError(f"{path}: no such file; decode this system and set in this mode first")
    texts = read_map(path, empty_values=True)
    check_same_utterances(reference, texts, str(path))
    return _normalised(texts, normalise)


def _normalised(texts: dict[str, str], how: str) -> dict[str, str]:
    if how == "none":
        return texts
    from espnet_prune.models.whisper.normalise import english_normaliser

    normaliser = english_normaliser()
    return {name: normaliser(text) for name, text in texts.items()}


def _normalisation(how: str) -> str | None:
    if how == "none":
        return None
    from espnet_prune.models.whisper.normalise import normalisation_name

    return normalisation_name()


def _folder_name(folder: Path) -> str:
    """Also of ``.``."""
    return folder.resolve().name


def _check_names(others: Sequence[Path]) -> None:
    """ConfigError if two of them would have one place in score.json."""
    from espnet_prune.errors import ConfigError

    counts = Counter(map(_folder_name, others))
    name, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        paths = ", ".join(str(other) for other in others if _folder_name(other) == name)
        raise ConfigError(
            f"--compare_with: {count} systems are called {name} ({paths}), but score.json names "
            "them by their folders; give each once, and rename the folders that are alike"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Scores and prints one line a mode."""
    from espnet_prune.data.kaldi_dir import read_map
    from espnet_prune.errors import DataError
    from espnet_prune.export.int8 import base_mode
    from espnet_prune.io_atomic import write_json
    from espnet_prune.score.wer import score

    args = get_parser().parse_args(argv)
    _check_names(args.compare_with)
    reference = _normalised(read_map(args.data / "text"), args.normalise)
    folder = args.system / "decode" / args.set
    hypotheses = sorted(folder.glob("*/hyp"))
    if not hypotheses:
        raise DataError(f"{folder}: no <mode>/hyp there; decode this set first")
    for path in hypotheses:
        theirs = {}
        for other in [*([args.teacher] if args.teacher else []), *args.compare_with]:
            found = other / "decode" / args.set / base_mode(path.parent.name) / "hyp"
            if not found.exists() or not found.samefile(path):  # of itself p says nothing
                theirs[other] = _hypotheses(found, reference, args.normalise)
        own = _hypotheses(path, reference, args.normalise)
        result = score(reference, own, theirs.get(args.teacher))
        record = {**result.to_json(), "normalisation": _normalisation(args.normalise)}
        p_values = []
        if args.teacher in theirs:
            p_values.append(f"p {result.p_vs_teacher:.3g} against the teacher")
        for other in (other for other in args.compare_with if other in theirs):
            p_value = score(reference, own, theirs[other]).p_vs_teacher
            record.setdefault("p_vs", {})[_folder_name(other)] = p_value
            p_values.append(f"p {p_value:.3g} against {_folder_name(other)}")
        write_json(path.parent / "score.json", record)
        print(
            f"{_folder_name(args.system)} {args.set}/{path.parent.name}: {result.wer:.2f}% WER "
            f"({result.errors} of {result.words} words, "
            f"{', '.join([f'95% {result.ci95[0]:.2f} to {result.ci95[1]:.2f}', *p_values])})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
