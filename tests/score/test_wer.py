"""Scoring: both tools agree, intervals and p-values behave."""

import itertools
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from espnet_prune.cli import main
from espnet_prune.errors import DataError
from espnet_prune.io_atomic import read_json
from espnet_prune.score import wer
from espnet_prune.score.alignment import align
from espnet_prune.score.wer import (
    count_errors,
    find_sclite,
    interval,
    matched_pairs,
    score,
)

WORDS = ["A", "a", "it's", "(b)", "{c", "/", "ü", "D", "<x>", "E"]


def corpus(drop: float, add: float, seed: int = 0) -> tuple[dict, dict]:
    generator = random.Random(seed)
    reference = {
        f"u{i:03d}": " ".join(generator.choice(WORDS) for _ in range(generator.randint(1, 8)))
        for i in range(150)
    }
    hypothesis = {}
    for utterance, text in reference.items():
        kept = [word for word in text.split() if generator.random() > drop]
        if generator.random() < add:
            kept.append(generator.choice(WORDS))
        hypothesis[utterance] = " ".join(kept)
    return reference, hypothesis


needs_sclite = pytest.mark.skipif(
    find_sclite() is None, reason="sclite (Debian's sctk) isn't installed"
)


@needs_sclite
@pytest.mark.parametrize("seed", range(3))
def test_both_tools_count_alike(seed):
    reference, hypothesis = corpus(0.2, 0.3, seed)
    (sclite, _), (ours, _) = (
        count_errors(reference, hypothesis, tool) for tool in ("sclite", "alignment")
    )
    assert sclite == ours
    assert sum(c.words for c in ours) == sum(len(text.split()) for text in reference.values())


@needs_sclite
def test_both_tools_count_alike_where_alignments_tie():
    """Unrelated texts of few different words: equally cheap alignments of unequal errors."""
    generator = random.Random(0)

    def text(words: int) -> str:
        return " ".join(generator.choice(WORDS[:words]) for _ in range(generator.randint(0, 14)))

    reference = {f"u{i:04d}": text(2 + i % 5) for i in range(1000)}
    hypothesis = {f"u{i:04d}": text(2 + i % 5) for i in range(1000)}
    (sclite, _), (ours, _) = (
        count_errors(reference, hypothesis, tool) for tool in ("sclite", "alignment")
    )
    assert sclite == ours


def test_the_alignment_is_as_cheap_as_kaldialigns():
    kaldialign = pytest.importorskip("kaldialign")
    reference, hypothesis = corpus(0.4, 0.5, 1)
    for utterance, text in reference.items():
        words, recognised = text.split(), hypothesis[utterance].split()
        ours = align(words, recognised)
        theirs = kaldialign.edit_distance(words, recognised, sclite_mode=True)
        cost = 4 * ours.substitutions + 3 * (ours.deletions + ours.insertions)
        assert cost == 4 * theirs["sub"] + 3 * (theirs["del"] + theirs["ins"])


def by_cells(words: list[str], recognised: list[str]) -> tuple[int, int, int]:
    """The same table, cell by cell: cost, substitutions, deletions and insertions of each."""
    row = [(3 * column, 0, 0, column) for column in range(len(recognised) + 1)]
    for word in words:
        above, row = row, [(row[0][0] + 3, 0, row[0][2] + 1, 0)]
        for column, other in enumerate(recognised):
            (c, s, d, i), wrong = above[column], word != other
            ways = [(c + 4 * wrong, s + wrong, d, i)]
            c, s, d, i = row[column]
            ways.append((c + 3, s, d, i + 1))
            c, s, d, i = above[column + 1]
            ways.append((c + 3, s, d + 1, i))
            row.append(min(ways, key=lambda way: way[0]))  # the first of the cheapest
    return row[-1][1:]


@given(*[st.lists(st.sampled_from("abc"), max_size=12)] * 2)
def test_whole_rows_give_what_cells_give(words, recognised):
    counts = align(words, recognised)
    found = (counts.substitutions, counts.deletions, counts.insertions)
    assert found == by_cells(words, recognised) and counts.words == len(words)


@needs_sclite
def test_long_texts_are_aligned_here_as_sclite_does(monkeypatch):
    """An hour's text, of 8,000 words, took sclite five minutes."""
    generator = random.Random(0)

    def text(words: int) -> str:
        return " ".join(generator.choice(WORDS) for _ in range(words))

    reference = {"a": text(300), "b": text(3), "c": text(200)}
    hypothesis = {"a": text(280), "b": text(4), "c": text(210)}
    expected, _ = count_errors(reference, hypothesis, "sclite")
    asked = []
    run = subprocess.run
    monkeypatch.setattr(wer, "LONG_CELLS", 1000)
    monkeypatch.setattr(wer.subprocess, "run", lambda *a, **k: asked.append(a) or run(*a, **k))
    assert count_errors(reference, hypothesis, "sclite") == (expected, "sclite")
    monkeypatch.setattr(wer, "LONG_CELLS", 0)
    assert len(asked) == 1 and count_errors(reference, hypothesis, "sclite")[0] == expected
    assert len(asked) == 1, "none is left for sclite"


def test_jiwer_finds_no_more_errors_and_keeps_the_length():
    reference, hypothesis = corpus(0.4, 0.5, 1)
    reference, hypothesis = {**reference, "empty": ""}, {**hypothesis, "empty": "ONE"}
    (ours, _), (theirs, tool) = (
        count_errors(reference, hypothesis, tool) for tool in ("alignment", "jiwer")
    )
    assert tool == "jiwer"
    for own, other in zip(ours, theirs, strict=True):
        assert other.words == own.words and other.errors <= own.errors
        assert other.insertions - other.deletions == own.insertions - own.deletions
    assert theirs[-1].insertions == 1


def test_known_counts():
    reference = {"a": "ONE TWO THREE", "b": "FOUR"}
    result = score(reference, {"a": "ONE TOO THREE FIVE", "b": ""}, tool="alignment")
    counts = (result.errors, result.substitutions, result.insertions, result.deletions)
    assert counts == (3, 1, 1, 1)
    assert result.wer == pytest.approx(75.0)


def test_case_counts():
    assert score({"a": "yes"}, {"a": "YES"}, tool="alignment").errors == 1


def test_interval_contains_the_estimate_and_repeats():
    reference, hypothesis = corpus(0.2, 0.3)
    first, second = (score(reference, hypothesis, tool="alignment") for _ in range(2))
    assert first.ci95[0] < first.wer < first.ci95[1]
    assert first.ci95 == second.ci95


def test_interval_narrows_with_more_utterances():
    errors, words = numpy.array([0, 1, 2, 0] * 10), numpy.full(40, 5)
    narrow = interval(numpy.tile(errors, 16), numpy.tile(words, 16))
    wide = interval(errors, words)
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_the_interval_of_one_word_utterances_is_the_binomial_one():
    """Errors of a resample are then binomial; the bounds of 90% would be 3 errors further in."""
    utterances, wrong = 400, 100
    errors = numpy.arange(utterances) < wrong
    bounds = interval(errors.astype(int), numpy.ones(utterances, dtype=int))
    counts = binom.ppf([0.025, 0.975], utterances, wrong / utterances)
    assert [bound * utterances / 100 for bound in bounds] == pytest.approx(counts, abs=1)


def test_equal_systems_are_not_different_and_clearly_different_ones_are():
    reference, good = corpus(0.02, 0.0)
    _, bad = corpus(0.4, 0.5)
    assert score(reference, good, good, tool="alignment").p_vs_teacher == 1.0
    assert score(reference, bad, good, tool="alignment").p_vs_teacher < 0.001


def test_p_value_is_symmetric_and_exact_on_few_pairs():
    few = numpy.array([1, 1, 1, 1])
    nothing = numpy.zeros(4, dtype=int)
    assert matched_pairs(few, nothing) == pytest.approx(2 / 16)
    assert matched_pairs(nothing, few) == pytest.approx(2 / 16)


def test_sizes_of_differences_count_not_their_signs_alone():
    differences = numpy.array([1, 1, 2, -1, 1])
    flips = numpy.array(list(itertools.product([-1, 1], repeat=5)))
    as_extreme = abs(flips @ differences) >= 4
    assert as_extreme.mean() == 0.3125  # a sign test's p is 0.375
    assert matched_pairs(differences, numpy.zeros(5, dtype=int)) == pytest.approx(0.3125)


def sign_flip_p(differences: list[int]) -> float:
    """By whole numbers: how many ways to flip lead to each sum."""
    ways = Counter({0: 1})
    for size in differences:
        ways, before = Counter(), ways
        for total, number in before.items():
            ways[total + size] += number
            ways[total - size] += number
    extreme = sum(number for total, number in ways.items() if abs(total) >= abs(sum(differences)))
    return extreme / 2 ** len(differences)


@pytest.mark.parametrize("share", [0.45, 0.3, 0.05])
def test_p_value_of_many_pairs_is_exact_however_small(share):
    generator = numpy.random.default_rng(5)
    signs = numpy.where(generator.random(300) < share, -1, 1)
    differences = signs * generator.integers(0, 5, 300)
    exact = sign_flip_p(differences.tolist())
    assert matched_pairs(differences, numpy.zeros(300, dtype=int)) == pytest.approx(exact, 1e-9)


def test_p_value_of_a_large_set_is_never_zero():
    worse = numpy.ones(30000, dtype=int)
    assert 0 < matched_pairs(worse, 0 * worse) < 1e-300
    noise = numpy.resize([3, -1, 2, -2, 1, -3, 1, -1], 30000)
    assert matched_pairs(noise, 0 * noise) == 1.0
    noise[:40] = 2
    assert 0.1 < matched_pairs(noise, 0 * noise) < 1.0


@pytest.mark.parametrize("differing", [0, 1])
def test_fewer_than_two_differing_pairs_show_nothing(differing):
    assert matched_pairs(numpy.array([differing, 2, 3]), numpy.array([0, 2, 3])) == 1.0


@pytest.mark.parametrize("hypothesis", [{"a": "X"}, {"a": "X", "b": "Y", "c": "Z"}])
def test_missing_and_extra_utterances_are_named(hypothesis):
    with pytest.raises(DataError, match="b|c"):
        score({"a": "X", "b": "Y"}, hypothesis, tool="alignment")


def decoded(folder, texts):
    folder.mkdir(parents=True)
    (folder / "hyp").write_text("".join(f"{u} {t}".strip() + "\n" for u, t in texts.items()))


@pytest.fixture
def experiment(tmp_path):
    """A dump folder, a teacher and a system that are decoded in two modes."""
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "text").write_text("a ONE TWO\nb THREE\n")
    for system, text in (("teacher", "ONE TWO"), ("small", "ONE")):
        for mode in ("greedy", "joint"):
            decoded(tmp_path / system / "decode" / "test" / mode, {"a": text, "b": ""})
    return tmp_path


def score_main(experiment, *more: str) -> int:
    system = ["--system", str(experiment / "small"), "--set", "test", *more]
    return main(["score", "--data", str(experiment / "dump"), *system])


def test_main_scores_every_mode(experiment, capsys):
    assert score_main(experiment, "--teacher", str(experiment / "teacher")) == 0
    for mode in ("greedy", "joint"):
        result = read_json(experiment / "small" / "decode" / "test" / mode / "score.json")
        counts = [result[key] for key in ("errors", "words", "deletions", "utterances", "schema")]
        assert counts == [2, 3, 2, 2, 1]
        assert result["p_vs_teacher"] == 1.0
    assert "66.67% WER (2 of 3 words" in capsys.readouterr().out


def test_main_without_teacher_has_no_p(experiment):
    assert score_main(experiment) == 0
    result = read_json(experiment / "small" / "decode" / "test" / "joint" / "score.json")
    assert result["p_vs_teacher"] is None and result["test"] is None


@pytest.mark.parametrize("other, compared", [("teacher", {"teacher": 1.0}), ("small", None)])
def test_main_compares_with_another_system_but_not_with_itself(experiment, other, compared):
    assert score_main(experiment, "--compare_with", str(experiment / other)) == 0
    result = read_json(experiment / "small" / "decode" / "test" / "joint" / "score.json")
    assert result.get("p_vs") == compared


def test_main_compares_with_several_systems(experiment):
    shutil.copytree(experiment / "teacher", experiment / "third")
    others = [str(experiment / name) for name in ("teacher", "small", "third")]
    assert score_main(experiment, "--compare_with", *others) == 0
    result = read_json(experiment / "small" / "decode" / "test" / "joint" / "score.json")
    assert result["p_vs"] == {"teacher": 1.0, "third": 1.0}


def test_main_names_the_hypotheses_at_fault(experiment, capsys):
    path = experiment / "teacher" / "decode" / "test" / "joint" / "hyp"
    path.write_text("a ONE TWO\n")
    assert score_main(experiment, "--teacher", str(experiment / "teacher")) == 2
    assert f"{path}: 1 utterances are missing (b)" in capsys.readouterr().err
    path.unlink()
    assert score_main(experiment, "--teacher", str(experiment / "teacher")) == 2
    assert f"{path}: no such file; decode" in capsys.readouterr().err


def test_main_refuses_to_compare_with_two_systems_of_one_name(experiment, capsys):
    """The record names them by folder, so the second would take the first one's place."""
    shutil.copytree(experiment / "teacher", experiment / "other" / "teacher")
    others = [str(experiment / name) for name in ("teacher", "other/teacher")]
    assert score_main(experiment, "--compare_with", *others) == 2
    said = capsys.readouterr().err
    assert "--compare_with: 2 systems are called teacher" in said and others[1] in said
    assert not list(experiment.glob("small/decode/*/*/score.json"))


def test_main_names_folders_that_are_given_as_dots(experiment, monkeypatch, capsys):
    monkeypatch.chdir(experiment / "small")
    more = ["--system", ".", "--set", "test", "--compare_with", str(Path("decode/../../teacher"))]
    assert main(["score", "--data", str(experiment / "dump"), *more]) == 0
    assert capsys.readouterr().out.startswith("small test/greedy: ")
    monkeypatch.chdir(experiment / "teacher")
    assert score_main(experiment, "--compare_with", ".") == 0
    result = read_json(experiment / "small" / "decode" / "test" / "joint" / "score.json")
    assert result["p_vs"] == {"teacher": 1.0}
