"""Word error rate with its interval, and its significance against the uncompressed model.

Errors are counted by NIST's sclite where it is installed, otherwise, and for texts that take sclite
minutes, by an alignment that does what sclite does (``alignment``). Its order among equally cheap
ways matters, because they can differ in their number of errors: jiwer, whose weights are all 1, and
kaldialign's sclite mode, which breaks ties otherwise, give other totals. sclite gets the words as
neutral symbols, so that case, parentheses and encodings mean nothing special to it. Who compares
with figures that were counted by jiwer may ask for it.

The interval is a percentile bootstrap over utterances (Bisani and Ney 2004). The p-value is a
matched-pair test: the share of all ways to flip the signs of the differences of errors per
utterance whose sum is as extreme, two-sided (a permutation form of the matched-pairs test of
Gillick and Cox 1989, utterances as segments). It is exact: nothing is drawn at random.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy

from espnet_prune.errors import DataError, EnvironmentProblem
from espnet_prune.score.alignment import Counts, align

SCLITE_OF_DEBIAN = Path("/usr/lib/sctk/bin/sclite")
RESAMPLES = 10000
CONFIDENCE = 0.95
SEED = 0
TEST = "matched pairs: sign-flip permutation over utterances, two-sided"
LONG_CELLS = 250_000  # of an alignment: above, sclite takes seconds, and minutes for an hour's text
SCORES = re.compile(r"Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)")


@dataclass(frozen=True)
class Score:
    """The result of a set, as score.json has it; rates in percent."""

    errors: int
    words: int
    wer: float
    ci95: tuple[float, float]
    p_vs_teacher: float | None
    substitutions: int
    deletions: int
    insertions: int
    utterances: int
    tool: str
    test: str | None

    def to_json(self) -> dict:
        """A dictionary for JSON."""
        return {"schema": 1, **asdict(self), "ci95": list(self.ci95)}


def find_sclite() -> str | None:
    """Path of sclite, None where it isn't installed."""
    if SCLITE_OF_DEBIAN.exists():
        return str(SCLITE_OF_DEBIAN)
    return shutil.which("sclite")


def check_same_utterances(reference: Mapping, hypothesis: Mapping, where: str) -> None:
    """DataError unless both have the same utterances."""
    missing = sorted(set(reference) - set(hypothesis))
    extra = sorted(set(hypothesis) - set(reference))
    if missing or extra:
        raise DataError(
            f"{where}: {len(missing)} utterances are missing ({', '.join(missing[:3])}), "
            f"{len(extra)} are not in the reference ({', '.join(extra[:3])}); decode again"
        )


def count_errors(
    reference: Mapping[str, str], hypothesis: Mapping[str, str], tool: str | None = None
) -> tuple[list[Counts], str]:
    """Errors of each utterance, in the reference's order, and the tool that counted them.

    Args:
        reference: transcript by utterance.
        hypothesis: recognised text by utterance, which may be empty.
        tool: one of ``TOOLS``; by default sclite where it is installed, else ``alignment``.
    """
    check_same_utterances(reference, hypothesis, "hypotheses")
    pairs = [(reference[u].split(), hypothesis[u].split()) for u in reference]
    if tool is None:
        tool = "sclite" if find_sclite() else "alignment"
    return TOOLS[tool](pairs), tool


def _count_by_alignment(pairs: Sequence[tuple[list[str], list[str]]]) -> list[Counts]:
    return [align(words, recognised) for words, recognised in pairs]


def _count_by_sclite(pairs: Sequence[tuple[list[str], list[str]]]) -> list[Counts]:
    long = {n for n, (words, others) in enumerate(pairs) if len(words) * len(others) > LONG_CELLS}
    by_sclite = iter(_run_sclite([pair for n, pair in enumerate(pairs) if n not in long]))
    return [align(*pair) if n in long else next(by_sclite) for n, pair in enumerate(pairs)]


def _run_sclite(pairs: Sequence[tuple[list[str], list[str]]]) -> list[Counts]:
    if not pairs:
        return []
    program = find_sclite()
    if program is None:
        raise EnvironmentProblem("sclite isn't installed; `apt-get install sctk`")
    symbols: dict[str, str] = {}

    def line(words: list[str], number: int) -> str:
        names = [symbols.setdefault(word, f"w{len(symbols)}") for word in words]
        return " ".join([*names, f"(s-{number:08d})"]) + "\n"

    with tempfile.TemporaryDirectory() as folder:
        for name, side in (("ref.trn", 0), ("hyp.trn", 1)):
            lines = (line(pair[side], number) for number, pair in enumerate(pairs))
            Path(folder, name).write_text("".join(lines))
        command = [program, "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "rm"]
        command += ["-o", "pralign", "stdout"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = [tuple(map(int, m.groups())) for m in SCORES.finditer(run.stdout)]
    if run.returncode or len(found) != len(pairs):
        raise EnvironmentProblem(
            f"{program}: {len(found)} of {len(pairs)} utterances were scored ({run.stderr[:200]})"
        )
    return [Counts(c + s + d, s, d, i) for c, s, d, i in found]


def _count_by_jiwer(pairs: Sequence[tuple[list[str], list[str]]]) -> list[Counts]:
    import jiwer

    counts = []
    for words, recognised in pairs:
        if not words:  # which jiwer refuses
            counts.append(Counts(0, 0, 0, len(recognised)))
            continue
        found = jiwer.process_words(" ".join(words), " ".join(recognised))
        kinds = (found.substitutions, found.deletions, found.insertions)
        counts.append(Counts(len(words), *kinds))
    return counts


TOOLS = {"sclite": _count_by_sclite, "alignment": _count_by_alignment, "jiwer": _count_by_jiwer}


def interval(errors: numpy.ndarray, words: numpy.ndarray, seed: int = SEED) -> tuple[float, float]:
    """The 95% bootstrap interval of the WER in percent.

    Args:
        errors: (utterances,).
        words: (utterances,).
        seed: seed of the resampling.
    """
    generator = numpy.random.default_rng(seed)
    rates = []
    for _ in range(RESAMPLES // 500):
        chosen = generator.integers(0, len(errors), (500, len(errors)))
        rates.append(errors[chosen].sum(1) / numpy.maximum(1, words[chosen].sum(1)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = numpy.percentile(100 * numpy.concatenate(rates), [tail, 100 - tail])
    return float(low), float(high)


def matched_pairs(errors: numpy.ndarray, others: numpy.ndarray) -> float:
    """Two-sided p that two systems make equally many errors on the same utterances.

    Differences are whole numbers, so the distribution of their sum under flipped signs is a
    convolution of one binomial distribution for each size of a difference: tenths of a second for
    30,000 utterances. All its terms are positive and are added as they are, without a Fourier
    transform, so that a small p has the digits of a large one.

    Args:
        errors: (utterances,) whole numbers, of one system.
        others: (utterances,), of the other.

    Returns:
        Above 0: the smallest normal float stands for any smaller p.
    """
    from scipy.stats import binom

    differences = errors - others
    total = abs(int(differences.sum()))
    if total == 0:  # every way to flip is as extreme
        return 1.0
    sizes, counts = numpy.unique(abs(differences[differences != 0]), return_counts=True)
    # The sizes that become negative add up to at most this where the sum is as extreme; the
    # distribution is symmetric, so its other tail is as heavy.
    most = (int(abs(differences).sum()) - total) // 2
    chances = numpy.zeros(most + 1)  # of what the negative ones add up to
    chances[0] = 1.0
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        flipped = binom.pmf(numpy.arange(count + 1), count, 0.5)
        for start in range(min(size, most + 1)):
            part = chances[start::size]
            part[:] = numpy.convolve(part, flipped[: len(part)])[: len(part)]
    tiny = float(numpy.finfo(float).tiny)
    return min(1.0, max(tiny, 2 * float(chances.sum())))


def score(
    reference: Mapping[str, str],
    hypothesis: Mapping[str, str],
    teacher: Mapping[str, str] | None = None,
    tool: str | None = None,
) -> Score:
    """WER of a set with interval, and p against the teacher's hypotheses if they are given.

    Raises:
        DataError: an utterance is missing or too many; the reference has no words.
    """
    counts, tool = count_errors(reference, hypothesis, tool)
    errors = numpy.array([c.errors for c in counts])
    words = numpy.array([c.words for c in counts])
    if words.sum() == 0:
        raise DataError("the reference has no words; a WER needs some")
    p_value = None
    if teacher is not None:
        theirs, _ = count_errors(reference, teacher, tool)
        p_value = matched_pairs(errors, numpy.array([c.errors for c in theirs]))
    return Score(
        errors=int(errors.sum()),
        words=int(words.sum()),
        wer=float(100 * errors.sum() / words.sum()),
        ci95=interval(errors, words),
        p_vs_teacher=p_value,
        substitutions=sum(c.substitutions for c in counts),
        deletions=sum(c.deletions for c in counts),
        insertions=sum(c.insertions for c in counts),
        utterances=len(counts),
        tool=tool,
        test=None if teacher is None else TEST,
    )
