"""Balanced distillation: weights by the effective number of samples, in closed form."""

import pytest
import torch
from torch.nn import functional as F

from espnet_prune.distill import ClassBalance, DistillConfig, kl_loss
from espnet_prune.errors import ConfigError


def certain(classes: list[int], number: int = 3) -> torch.Tensor:
    """Logits (1, L, V) of a teacher that is sure of each frame's class."""
    return 200.0 * F.one_hot(torch.tensor([classes]), number).float()


def test_weights_are_those_of_the_effective_number_and_have_the_mean_1():
    balance, beta = ClassBalance(3, 0.9), 0.9
    logits = certain([0, 0, 0, 0, 1, 2, 2])
    valid = torch.ones(1, 7, dtype=torch.bool)
    valid[0, 6] = False  # padding isn't counted
    found = balance(logits, valid)
    expected = torch.tensor([(1 - beta) / (1 - beta**n) for n in (4, 1, 1)])
    assert torch.allclose(found, expected / expected.mean())
    assert balance.seen.tolist() == [4, 1, 1]
    assert torch.equal(balance.eval()(logits, valid), found), "validation counts nothing"


def test_without_a_beta_all_weigh_alike():
    balance = ClassBalance(3, 0.0)
    assert balance(certain([0, 0, 1]), torch.ones(1, 3, dtype=torch.bool)).tolist() == [1, 1, 1]


def test_the_weighted_teacher_is_normalised_again():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 1, 4, 3, generator=generator)
    valid, weights = torch.ones(1, 4, dtype=torch.bool), torch.tensor([0.5, 2.0, 1.0])
    soft = torch.softmax(theirs[0] / 2, dim=-1) * weights
    soft = soft / soft.sum(dim=-1, keepdim=True)
    expected = (soft * (soft.log() - F.log_softmax(ours[0] / 2, dim=-1))).sum(dim=-1).mean() * 4
    assert torch.allclose(kl_loss(ours, theirs, valid, 2.0, weights), expected)
    plain = kl_loss(ours, theirs, valid, 2.0)
    assert torch.allclose(kl_loss(ours, theirs, valid, 2.0, torch.ones(3)), plain)


def test_a_beta_of_1_is_refused():
    with pytest.raises(ConfigError, match="distillation: balance"):
        DistillConfig(balance=1.0)
