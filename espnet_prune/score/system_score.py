"""The scores of one system on one set: WER with interval and p-values, of every decoded mode.

What was decoded in int8 is compared with the others in floating point.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.export.int8 import base_mode
from espnet_prune.io_atomic import write_json
from espnet_prune.job_control import only_writer
from espnet_prune.score.wer import check_same_utterances, score


def score_system(
    system: Path,
    set_name: str,
    data: Path,
    teacher: Path | None = None,
    others: Sequence[Path] = (),
    normalise: str = "none",
    tool: str | None = None,
) -> Iterator[str]:
    """Writes ``score.json`` of every decoded mode.

    Args:
        system: the system's folder.
        set_name: name of the set, below ``decode`` there.
        data: dump folder, for its text.
        teacher: the teacher's folder, for the p-value.
        others: folders of systems that it is compared with besides.
        normalise: ``none`` or ``english``, what is done to texts before they count.
        tool: what counts the errors; None for sclite where it is installed.

    Yields:
        A line a mode, for the user.

    Raises:
        ConfigError: two of the others have one name.
        DataError: nothing was decoded, or not the utterances of ``data``.
        TrainingError: another process decodes or scores this set.
    """
    _check_names(others)
    folder = system / "decode" / set_name
    hypotheses = sorted(folder.glob("*/hyp"))
    if not hypotheses:
        raise DataError(f"{folder}: no <mode>/hyp there; decode this set first")
    reference = _normalised(read_map(data / "text"), normalise)
    with only_writer(folder, "decodes or scores"):
        for path in hypotheses:
            theirs = {}
            for other in [*([teacher] if teacher else []), *others]:
                found = other / "decode" / set_name / base_mode(path.parent.name) / "hyp"
                if not found.exists() or not found.samefile(path):  # of itself p says nothing
                    theirs[other] = _hypotheses(found, reference, normalise)
            own = _hypotheses(path, reference, normalise)
            result = score(reference, own, theirs.get(teacher), tool)
            record = {**result.to_json(), "normalisation": _normalisation(normalise)}
            found = [f"95% {result.ci95[0]:.2f} to {result.ci95[1]:.2f}"]
            if teacher in theirs:
                found.append(f"p {result.p_vs_teacher:.3g} against the teacher")
            for other in (other for other in others if other in theirs):
                p_value = score(reference, own, theirs[other], tool).p_vs_teacher
                record.setdefault("p_vs", {})[_folder_name(other)] = p_value
                found.append(f"p {p_value:.3g} against {_folder_name(other)}")
            write_json(path.parent / "score.json", record)
            yield (
                f"{_folder_name(system)} {set_name}/{path.parent.name}: {result.wer:.2f}% WER "
                f"({result.errors} of {result.words} words, {', '.join(found)})"
            )


def _hypotheses(path: Path, reference: Mapping[str, str], normalise: str) -> dict[str, str]:
    """Recognised texts, of the reference's utterances exactly, normalised."""
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
    counts = Counter(map(_folder_name, others))
    name, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        paths = ", ".join(str(other) for other in others if _folder_name(other) == name)
        raise ConfigError(
            f"--compare_with: {count} systems are called {name} ({paths}), but score.json names "
            "them by their folders; give each once, and rename the folders that are alike"
        )
