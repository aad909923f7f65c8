"""Retention gates against closed forms."""

import math

import pytest
import torch

from espnet_prune.errors import ConfigError
from espnet_prune.gates import RetentionConfig, RetentionGate


def gate_of(*logits: float, **options) -> RetentionGate:
    gate = RetentionGate(len(logits), RetentionConfig(**options))
    with torch.no_grad():
        gate.logits.copy_(torch.tensor(logits))
    return gate


def test_units_begin_with_the_retention_that_is_asked_for():
    assert RetentionGate(3, RetentionConfig(start=0.9)).probabilities().tolist() == pytest.approx(
        [0.9] * 3
    )


def test_a_unit_is_drawn_with_its_retention():
    gate = gate_of(math.log(0.7 / 0.3))
    noise = torch.linspace(0.0005, 0.9995, 1000)
    kept = [float(gate.sample(noise[i : i + 1]).detach()) for i in range(1000)]
    assert set(kept) == {0.0, 1.0} and sum(kept) / 1000 == pytest.approx(0.7, abs=0.002)


def test_the_gradient_is_that_of_the_soft_choice():
    gate = gate_of(0.3, -1.2, temperature=0.5)
    noise = torch.tensor([0.4, 0.8])
    gate.sample(noise).sum().backward()
    soft = torch.sigmoid((gate.logits.detach() + noise.logit()) / 0.5)
    assert torch.allclose(gate.logits.grad, soft * (1 - soft) / 0.5)


def test_the_fixed_mask_and_its_shift():
    gate = gate_of(1.0, -0.5, 0.2, 0.0).eval()
    assert gate().tolist() == [1, 0, 1, 0], "a retention of one half is not above it"
    assert gate.deterministic(-0.6).tolist() == [1, 0, 0, 0]
    expected = torch.sigmoid(torch.tensor([1.6, 0.1, 0.8, 0.6]))
    assert torch.allclose(gate.moved(0.6), expected)
    gate.move(0.6)
    assert torch.allclose(gate.probabilities(), expected)


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="retention: start"):
        RetentionConfig(start=1.0)
