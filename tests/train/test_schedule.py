"""Learning rates by a list: ESPnet's within it, and no jump where it ends."""

import logging

import pytest
import torch
from espnet2.schedulers.piecewise_linear_warmup_lr import PiecewiseLinearWarmupLR

from espnet_prune.models.espnet import choices  # noqa: F401  (stand-ins first)
from espnet_prune.train import prune_task, teacher_task
from espnet_prune.train.schedule import PiecewiseLinearLR


def rates(kind: type, updates: int, steps: list, values: list, rate: float = 0.01) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule, seen = kind(optimizer, steps, values), []
    for _ in range(updates):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_within_its_list_it_is_espnets():
    about = (20, [0, 5, 20], [0.0, 0.01, 0.0])
    assert rates(PiecewiseLinearLR, *about) == rates(PiecewiseLinearWarmupLR, *about)


def test_a_list_that_ends_at_nothing_stays_there_and_says_so(caplog):
    about = (30, [0, 5, 20], [0.0, 0.01, 0.0])
    with caplog.at_level(logging.WARNING):
        held = rates(PiecewiseLinearLR, *about)
    assert held[19:] == [0.0] * 11 and max(held[:19]) > 0
    assert rates(PiecewiseLinearWarmupLR, *about)[20] == pytest.approx(0.01, rel=0.05)  # the jump
    said = [record.message for record in caplog.records]
    assert len(said) == 1 and "ends at update 20" in said[0] and "stays at 0" in said[0]


def test_a_training_that_ends_with_its_list_is_not_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        rates(PiecewiseLinearLR, 20, [0, 5, 20], [0.0, 0.01, 0.0])
    assert not caplog.records


def test_a_list_that_ends_at_the_optimisers_rate_falls_as_espnets_does():
    about = (30, [0, 5], [0.0, 0.01])
    assert rates(PiecewiseLinearLR, *about) == rates(PiecewiseLinearWarmupLR, *about)


@pytest.mark.parametrize("module", [teacher_task, prune_task])
def test_trainings_take_it(module):
    from espnet2.tasks.abs_task import scheduler_classes

    assert module.schedule is not None
    assert scheduler_classes["piecewiselinearwarmuplr"] is PiecewiseLinearLR
