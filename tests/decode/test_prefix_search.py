"""CTC prefix beam search against sums over all alignments."""

import itertools
import math

import pytest
import torch

from espnet_prune.decode.prefix_search import LEAST_PROBABILITY, prefix_search

FRAMES, COLUMNS = 4, 10
BLANK, END = 3, 9


def sums_over_alignments(log_probabilities, blank: int) -> dict[tuple[int, ...], float]:
    """Probability of every text, by going through every alignment."""
    frames, columns = log_probabilities.shape
    probabilities = log_probabilities.exp().tolist()
    sums: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(columns), repeat=frames):
        text = tuple(token for token, _ in itertools.groupby(path) if token != blank)
        chance = math.prod(probabilities[t][token] for t, token in enumerate(path))
        sums[text] = sums.get(text, 0.0) + chance
    return sums


def random_outputs(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(FRAMES, COLUMNS, generator=generator).mul(2).log_softmax(-1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_score_is_the_sum_over_alignments_and_a_wide_beam_finds_the_best(seed):
    outputs = random_outputs(seed)
    sums = {t: p for t, p in sums_over_alignments(outputs, BLANK).items() if END not in t}
    found = []
    for beam in range(1, 11):
        tokens, score = prefix_search(outputs, BLANK, beam, never=(END,))
        assert math.exp(score) == pytest.approx(sums[tuple(tokens)], rel=1e-4)
        found.append(sums[tuple(tokens)])
    assert found[-1] == max(sums.values())
    assert found[0] <= found[-1]


def test_it_beats_the_best_alignment_where_many_alignments_have_one_text():
    chances = torch.tensor([[0.4, 0.6], [0.4, 0.6]])  # token 0, blank; the best path is empty
    tokens, score = prefix_search(chances.log(), 1, 4)
    assert tokens == [0]
    assert math.exp(score) == pytest.approx(1 - 0.36)


def test_repeated_tokens_need_a_blank_between():
    chances = torch.full((3, 3), 0.01)
    for frame, token in enumerate((1, 0, 1)):
        chances[frame, token] = 0.98
    assert prefix_search(chances.log(), 0, 2)[0] == [1, 1]


def test_silence_is_empty():
    outputs = torch.full((20, 6), 1e-6)
    outputs[:, 0] = 1 - 5e-6
    tokens, score = prefix_search(outputs.log(), 0, 4)
    assert tokens == [] and score == pytest.approx(0, abs=1e-3)


def test_tokens_that_no_frame_gives_a_chance_change_nothing():
    outputs = random_outputs(5)
    wide = torch.full((FRAMES, 500), math.log(LEAST_PROBABILITY / 10))
    kept = [0, 99, 100, 200, 201, 300, 301, 401, 480, 499]
    wide[:, kept] = outputs
    tokens, score = prefix_search(outputs, BLANK, 4, never=(END,))
    places, wide_score = prefix_search(wide, kept[BLANK], 4, never=(kept[END],))
    assert places == [kept[token] for token in tokens]
    assert wide_score == pytest.approx(score, rel=1e-5)


def test_the_penalty_and_the_longest_text_are_obeyed():
    outputs = random_outputs(1)
    plain = prefix_search(outputs, BLANK, 10, penalty=-9.0)[0]
    rewarded, score = prefix_search(outputs, BLANK, 10, penalty=2.0)
    assert len(rewarded) > len(plain)
    chance = sums_over_alignments(outputs, BLANK)[tuple(rewarded)]
    assert score == pytest.approx(math.log(chance) + 2.0 * (len(rewarded) + 1), rel=1e-4)
    assert len(prefix_search(outputs, BLANK, 10, penalty=2.0, maxlenratio=-1.0)[0]) <= 1
