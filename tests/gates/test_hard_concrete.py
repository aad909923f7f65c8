"""The hard-concrete gate against the closed forms of its paper."""

import math

import pytest
import torch

from espnet_prune.errors import ConfigError
from espnet_prune.gates import FixedGate, HardConcreteConfig, HardConcreteGate


def gate_at(values: list[float], **options) -> HardConcreteGate:
    gate = HardConcreteGate(len(values), **options)
    with torch.no_grad():
        gate.log_alpha.copy_(torch.tensor(values))
    return gate


def test_probability_of_being_open_has_the_published_values():
    gate = gate_at([0.0, 4.595])
    assert gate.probabilities().tolist() == pytest.approx([0.832, 0.998], abs=5e-4)


def test_samples_agree_with_the_probability_and_the_mean():
    torch.manual_seed(0)
    gate = gate_at([0.0] * 200000)
    mask = gate.sample(torch.rand(gate.units)).detach()
    assert float((mask != 0).float().mean()) == pytest.approx(0.832, abs=0.005)
    assert float(mask.detach().mean()) == pytest.approx(0.499, abs=0.005)
    assert float(mask.min()) == 0.0 and float(mask.max()) == 1.0


def test_initial_drop_rate_sets_log_alpha():
    gate = HardConcreteGate(1, HardConcreteConfig(initial_drop_rate=0.1))
    assert float(gate.log_alpha.detach()) == pytest.approx(math.log(9))


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_drop_rate_out_of_range_is_named(rate):
    with pytest.raises(ConfigError, match="initial_drop_rate"):
        HardConcreteConfig(initial_drop_rate=rate)


def test_deterministic_mask_has_as_many_zeros_as_expected_and_soft_values():
    gate = gate_at([-4.0, 4.0, -3.0, 4.5])
    zeros = round(4 - float(gate.probabilities().sum()))
    mask = gate.deterministic()
    assert int((mask == 0).sum()) == zeros == 2
    assert mask.nonzero()[:, 0].tolist() == [1, 3]
    assert float(mask[1]) == pytest.approx(1 / (1 + math.exp(-0.8 * 4.0 * 1.5)))


def test_binary_gate_is_zero_or_one():
    assert gate_at([1.0], binary=True).deterministic().tolist() == [1.0]
    assert gate_at([-4.0], binary=True).deterministic().tolist() == [0.0]


def test_shift_opens_and_closes():
    gate = gate_at([-2.0, 0.0, 2.0])
    assert int((gate.deterministic(12.0) != 0).sum()) == 3
    assert int((gate.deterministic(-12.0) != 0).sum()) == 0


def test_a_shift_that_closes_leaves_the_values_and_one_that_opens_lifts_them():
    gate = gate_at([0.0, 0.5, 2.0, 3.0])
    mask, closed, opened = (gate.deterministic(shift) for shift in (0.0, -3.5, 1.5))
    assert (mask != 0).all() and closed[:2].tolist() == [0.0, 0.0]
    assert torch.equal(closed[2:], mask[2:])
    lifted = [1 / (1 + math.exp(-0.8 * value * 1.5)) for value in (1.5, 2.0, 3.5, 4.5)]
    assert opened.tolist() == pytest.approx(lifted)


def test_projection_keeps_log_alpha_where_it_can_come_back():
    gate = gate_at([-50.0, 50.0])
    gate.project()
    assert float(gate.log_alpha.detach().abs().max()) == pytest.approx(math.log(100), abs=1e-4)


def test_noise_is_the_only_randomness():
    gate = HardConcreteGate(8)
    noise = torch.rand(8)
    assert torch.equal(gate(noise), gate(noise))


def test_gradient_reaches_log_alpha():
    gate = gate_at([0.0] * 16)
    gate.sample(torch.linspace(0.3, 0.7, 16)).sum().backward()
    assert (gate.log_alpha.grad > 0).all()


def test_fixed_gate_keeps_its_mask():
    gate = FixedGate(3)
    gate.set(torch.tensor([1.0, 0.0, 0.5]))
    assert gate().tolist() == [1.0, 0.0, 0.5]
    assert gate.probabilities().tolist() == [1.0, 0.0, 1.0]


def test_a_settled_gate_draws_nothing_and_stays():
    config = HardConcreteConfig(settle_fraction=0.4)
    gate = HardConcreteGate(8, config, updates=10)
    with torch.no_grad():
        gate.log_alpha.copy_(torch.linspace(-4, 4, 8))
    gate.advance(5)
    gate.sample(torch.linspace(0.2, 0.8, 8)).sum().backward()
    assert gate.log_alpha.grad.abs().sum() > 0
    gate.advance(6)
    first, second = gate.sample(torch.rand(8)), gate.sample(torch.rand(8))
    assert torch.equal(first, second) and torch.equal(first, gate.deterministic())
    assert not first.requires_grad and not gate.probabilities().requires_grad
    restored = HardConcreteGate(8, config, updates=10)
    restored.load_state_dict(gate.state_dict())
    assert torch.equal(restored.sample(torch.rand(8)), first)
