"""The target's way past several sizes."""

import pytest

from espnet_prune.budget import LadderSchedule, Rung, TargetSchedule, even_rungs
from espnet_prune.errors import ConfigError

RUNGS = (Rung(0.3, 40), Rung(0.5, 80), Rung(0.7, 200))


def test_each_stretch_rises_from_the_size_before_and_holds():
    schedule = LadderSchedule(RUNGS, 0.25)
    expected = {0: 0.1, 5: 0.2, 10: 0.3, 39: 0.3, 40: 0.3, 45: 0.4, 50: 0.5, 79: 0.5}
    expected |= {80: 0.5, 95: 0.6, 110: 0.7, 199: 0.7, 500: 0.7}
    assert {update: schedule.at(update, 0.1) for update in expected} == pytest.approx(expected)


def test_one_size_is_the_plain_schedule():
    ladder, plain = LadderSchedule((Rung(0.6, 200),), 0.25), TargetSchedule(0.6, 50)
    assert all(ladder.at(u, 0.05) == plain.at(u, 0.05) for u in range(0, 300, 7))


@pytest.mark.parametrize(
    ("rungs", "message"),
    [
        ((Rung(0.5, 10), Rung(0.3, 20)), "0.3 comes after 0.5"),
        ((Rung(0.3, 10), Rung(0.3, 20)), "0.3 comes after 0.3"),
        ((Rung(0.3, 20), Rung(0.5, 20)), "updates of the ladder: 20 comes after 20"),
    ],
)
def test_what_does_not_rise_is_named(rungs, message):
    with pytest.raises(ConfigError, match=message):
        LadderSchedule(rungs, 0.25)


@pytest.mark.parametrize(
    ("sizes", "epochs", "ends"),
    [(1, 6, [6]), (2, 3, [2, 3]), (3, 6, [2, 4, 6]), (4, 5, [1, 2, 4, 5]), (5, 6, [1, 2, 4, 5, 6])],
)
def test_rungs_end_with_epochs_and_share_them(sizes, epochs, ends):
    targets = [0.1 * (index + 1) for index in range(sizes)]
    rungs = even_rungs(targets, 60 * epochs, 60)
    assert [rung.updates for rung in rungs] == [60 * end for end in ends]
    assert [rung.target for rung in rungs] == targets


def test_more_sizes_than_epochs_are_refused():
    with pytest.raises(ConfigError, match="4 sizes.* 3 stretches of 60.*more epochs or fewer"):
        even_rungs([0.1, 0.2, 0.3, 0.4], 180, 60)
