"""The self-pinching gate against its formula, by hand and by finite differences."""

import copy
import math

import pytest
import torch

from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.gates import SelfPinchingConfig, SelfPinchingGate

UPDATES = 100


class Matrix:
    """Owns a weight matrix, as a site does."""

    def __init__(self, values: torch.Tensor) -> None:
        self.weight = torch.nn.Parameter(values)

    def squares(self) -> torch.Tensor:
        return self.weight.flatten() ** 2


def matrix(size: int = 400, scale: float = 1.0) -> Matrix:
    generator = torch.Generator().manual_seed(1)
    return Matrix(scale * torch.randn(size, generator=generator, dtype=torch.float64))


def gate_on(owner: Matrix, threshold: float | None = None, **options) -> SelfPinchingGate:
    config = SelfPinchingConfig(**options)
    gate = SelfPinchingGate(owner.weight.numel(), owner.squares, config, UPDATES)
    if threshold is not None:
        with torch.no_grad():
            gate.threshold.fill_(threshold)
    return gate


@pytest.mark.parametrize("threshold", [0.3, 0.9, -0.9])
def test_rounding_equals_the_comparison_of_absolute_values(threshold):
    owner = matrix()
    gate = gate_on(owner, threshold)
    expected = (owner.weight.abs() >= abs(threshold)).double()
    assert torch.equal(gate.sample(torch.empty(0)), expected)
    assert torch.equal(gate.deterministic(), expected)
    assert torch.equal(gate.probabilities(), expected)
    soft = gate.soft()
    away = (soft - 0.5).abs() > 1e-9
    assert torch.equal(soft.round()[away], expected[away])


def test_a_weight_that_equals_the_threshold_stays():
    gate = gate_on(Matrix(torch.tensor([0.5, -0.5, 0.25])), 0.5)
    assert gate.deterministic().tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("factor", [1.0, 2.0, 10.0], ids=["code", "paper", "code of units"])
@pytest.mark.parametrize("temperature", [0.5, 0.05])
def test_gradients_are_those_of_the_formula(factor, temperature):
    owner = matrix(50)
    temperatures = {"temperature_start": temperature, "temperature_end": 0.01}
    gate = gate_on(owner, 0.7, temperature_factor=factor, **temperatures)
    upstream = torch.linspace(-1, 2, 50, dtype=torch.float64)
    (gate.sample(torch.empty(0)) * upstream).sum().backward()
    weight, scale = owner.weight.detach(), temperature * factor
    soft = torch.sigmoid((weight**2 - 0.7**2) / scale)
    slope = upstream * soft * (1 - soft) / scale
    assert torch.allclose(owner.weight.grad, 2 * weight * slope, atol=1e-6)
    assert float(gate.threshold.grad) == pytest.approx(float(-2 * 0.7 * slope.sum()), rel=1e-5)


@pytest.mark.parametrize("scaling", ["none", "mean"])
def test_gradient_of_the_threshold_is_the_soft_gate_s_difference_quotient(scaling):
    owner = matrix(50)
    gate = gate_on(owner, 0.6, score_scaling=scaling)
    gate.sample(torch.empty(0)).sum().backward()
    step = 1e-5

    def soft_sum(threshold: float) -> float:
        return float(gate_on(owner, threshold, score_scaling=scaling).soft().sum())

    quotient = (soft_sum(0.6 + step) - soft_sum(0.6 - step)) / (2 * step)
    assert float(gate.threshold.grad) == pytest.approx(quotient, rel=1e-5)


def test_gradient_of_a_weight_is_the_soft_gate_s_difference_quotient():
    owner = matrix(20)
    gate = gate_on(owner, 0.6)
    gate.sample(torch.empty(0)).sum().backward()
    step = 1e-5
    for index in (0, 7, 19):
        sums = []
        for sign in (1, -1):
            moved = copy.deepcopy(owner)
            moved.weight.data[index] += sign * step
            sums.append(float(gate_on(moved, 0.6).soft().sum()))
        quotient = (sums[0] - sums[1]) / (2 * step)
        assert float(owner.weight.grad[index]) == pytest.approx(quotient, rel=1e-4)


def test_a_masked_weight_s_gradient_has_both_parts():
    """d(W M)/dW = M + W dM/dW: what is kept is trained, what is closed can come back."""
    owner = Matrix(torch.tensor([0.2, 1.5], dtype=torch.float64))
    gate = gate_on(owner, 1.0)
    (owner.weight * gate.sample(torch.empty(0))).sum().backward()
    soft = torch.sigmoid((owner.weight.detach() ** 2 - 1.0) / 0.5)
    pinch = 2 * owner.weight.detach() ** 2 * soft * (1 - soft) / 0.5
    assert torch.allclose(owner.weight.grad, torch.tensor([0.0, 1.0]) + pinch, atol=1e-6)


def test_there_is_no_gradient_at_a_threshold_of_zero():
    """Why the threshold starts above it, and is kept there."""
    gate = gate_on(matrix(), 0.0)
    gate.sample(torch.empty(0)).sum().backward()
    assert float(gate.threshold.grad) == 0.0
    gate.project()
    assert float(gate.threshold.detach()) > 0


@pytest.mark.parametrize("rate, closed", [(0.0, 0), (0.01, 4), (0.5, 200)])
def test_the_threshold_starts_at_a_quantile_above_zero(rate, closed):
    gate = gate_on(matrix(), initial_drop_rate=rate)
    assert float(gate.threshold.detach()) > 0
    assert int((gate.deterministic() == 0).sum()) == closed


@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_few_units_are_all_open_at_the_start(rate):
    owner = Matrix(torch.rand(4) + 0.1)
    assert gate_on(owner, initial_drop_rate=rate).deterministic().tolist() == [1.0] * 4


def test_weights_that_are_all_zero_give_a_threshold_above_zero_and_no_nan():
    owner = Matrix(torch.zeros(8))
    gate = gate_on(owner, score_scaling="mean")
    assert float(gate.threshold.detach()) > 0
    gate.sample(torch.empty(0)).sum().backward()
    assert torch.isfinite(owner.weight.grad).all() and torch.isfinite(gate.threshold.grad)


def test_the_temperature_falls_by_a_cosine_from_the_published_start_to_its_end():
    gate = gate_on(matrix())
    seen = []
    for update in (0, 25, 50, 75, 100, 150):
        gate.advance(update)
        seen.append(float(gate.temperature))
    assert seen[0] == pytest.approx(0.5) and seen[4] == seen[5] == pytest.approx(0.01)
    assert seen[2] == pytest.approx((0.5 + 0.01) / 2)
    assert seen[1] == pytest.approx(0.01 + 0.49 * (1 + math.cos(math.pi / 4)) / 2)


def test_scaled_weights_need_a_scaled_temperature():
    """c W, c t and c^2 tau give the same gate; without the last, M is one half nearly everywhere.

    |M - 1/2| <= |W^2 - t^2| / (4 tau), because the logistic function's slope is at most 1/4.
    """
    options = {"temperature_start": 0.4}
    soft = gate_on(matrix(), 0.6, **options).soft()
    small = matrix(scale=0.1)
    scaled = {"temperature_start": 0.004, "temperature_end": 0.001}
    assert torch.allclose(gate_on(small, 0.06, **scaled).soft(), soft)
    flat = (gate_on(small, 0.06, **options).soft() - 0.5).abs()
    assert (flat <= (small.squares() - 0.06**2).abs() / (4 * 0.4) + 1e-12).all()
    assert float(flat.detach().mean()) < 0.01 < float((soft - 0.5).abs().detach().mean())


def test_normalised_scores_make_the_gate_independent_of_the_matrix_s_scale():
    one = gate_on(matrix(), 0.6, score_scaling="mean")
    other = gate_on(matrix(scale=1e-3), 0.6, score_scaling="mean")
    assert torch.allclose(one.soft(), other.soft())
    assert torch.equal(one.deterministic(), other.deterministic())


def test_a_shift_scales_the_threshold():
    owner = matrix()
    gate = gate_on(owner, 0.6)
    scaled = gate_on(owner, 0.6 * math.exp(-0.35))
    assert torch.equal(gate.deterministic(0.7), scaled.deterministic())
    assert int(gate.deterministic(60.0).sum()) == 400
    assert int(gate.deterministic(-60.0).sum()) == 0


def test_ratios_order_the_units_and_agree_with_the_mask():
    owner = matrix()
    gate = gate_on(owner, 0.6)
    assert torch.equal((gate.ratios() >= 1).double(), gate.deterministic())


def test_nothing_is_random_and_nothing_is_drawn():
    gate = gate_on(matrix(), 0.6)
    assert gate.noise_units == 0
    assert torch.equal(gate(), gate.eval()())


def test_a_copy_reads_the_copied_weights():
    owner = matrix(4)
    gate, twin_owner = copy.deepcopy((gate_on(owner, 0.6), owner))
    with torch.no_grad():
        twin_owner.weight.fill_(9.0)
    assert gate.deterministic().tolist() == [1.0] * 4


def test_state_is_saved_and_restored():
    gate = gate_on(matrix(), 0.8)
    gate.advance(40)
    fresh = gate_on(matrix())
    fresh.load_state_dict(gate.state_dict())
    assert torch.equal(fresh.soft(), gate.soft())


@pytest.mark.parametrize(
    "options, named",
    [
        ({"temperature_start": 0.0}, "temperature_start"),
        ({"temperature_end": 0.6}, "temperature_end"),
        ({"initial_drop_rate": 1.0}, "initial_drop_rate"),
    ],
)
def test_options_out_of_range_are_named(options, named):
    with pytest.raises(ConfigError, match=named):
        SelfPinchingConfig(**options)


def test_half_precision_weights_are_refused_with_the_remedy():
    with pytest.raises(ModelError, match="float16.*float32"):
        gate_on(Matrix(torch.rand(4, dtype=torch.float16)))


@pytest.mark.parametrize("scaling", ["none", "mean"])
def test_bfloat16_weights_are_compared_in_float32_and_all_open_at_the_start(scaling):
    owner = Matrix(matrix(4000).weight.detach().bfloat16())
    gate = gate_on(owner, initial_drop_rate=0.0, score_scaling=scaling)
    assert gate.threshold.dtype == gate().dtype == torch.float32
    assert int((gate.deterministic() == 0).sum()) == 0
    gate.sample(torch.empty(0)).sum().backward()
    assert torch.isfinite(owner.weight.grad).all() and owner.weight.grad.dtype == torch.bfloat16


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(ModelError, match="not finite"):
        gate_on(Matrix(torch.tensor([1.0, float("nan")])))


def test_steps_in_spreads_are_those_of_the_scores_standard_deviation():
    owner, plain = matrix(), matrix()
    gate, stock = gate_on(owner, 0.5, steps_in_spreads=True), gate_on(plain, 0.5)
    gate.before.fill_(0.5)
    with torch.no_grad():
        for each in (gate, stock):
            each.threshold.add_(0.1)
    spread = float(owner.weight.detach().abs().std(correction=0))
    gate.project()
    stock.project()
    assert float(gate.threshold.detach()) == pytest.approx(0.5 + 0.1 * spread)
    assert float(stock.threshold.detach()) == 0.6
    assert "before" not in stock.state_dict()


def test_steps_shrink_to_nothing_over_the_last_updates():
    gate = gate_on(matrix(), 0.5, settle_fraction=0.4)
    gate.before.fill_(0.5)
    made = []
    for update in range(UPDATES):
        before = float(gate.threshold.detach())
        with torch.no_grad():
            gate.threshold.add_(0.01)
        gate.project()
        gate.advance(update + 1)
        made.append((float(gate.threshold.detach()) - before) / 0.01)
    assert made[:61] == pytest.approx([1.0] * 61)
    assert made[80] == pytest.approx(0.5)
    assert made[-1] == pytest.approx(1 / 40)
    assert made[60:] == sorted(made[60:], reverse=True)


def test_no_step_is_left_after_the_end():
    config = SelfPinchingConfig(settle_fraction=0.4)
    steps = [config.step_at(updates, 10) for updates in (0, 6, 8, 10, 12)]
    assert steps == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_a_resumed_gate_goes_on_settling():
    first = gate_on(matrix(), 0.5, settle_fraction=0.5, steps_in_spreads=True)
    for update in range(80):
        first.project()
        first.advance(update + 1)
    second = gate_on(matrix(), 0.9, settle_fraction=0.5, steps_in_spreads=True)
    second.load_state_dict(first.state_dict())
    for gate in (first, second):
        with torch.no_grad():
            gate.threshold.add_(0.1)
        gate.project()
    assert torch.equal(first.threshold, second.threshold)
    assert float(first.threshold.detach()) < 0.6


def test_shares_out_of_range_are_named():
    with pytest.raises(ConfigError, match="settle_fraction"):
        SelfPinchingConfig(settle_fraction=1.5)


def test_the_published_scores_of_units_are_scaled_by_their_range():
    owner = Matrix(torch.tensor([1.0, 2.0, 3.0]))
    gate = gate_on(owner, score_scaling="range", initial_drop_rate=0.0)
    scaled = torch.tensor([0.0, 3 / 8, 1.0]) + 1e-5  # squares 1, 4, 9
    assert torch.allclose(gate.squares(), scaled.to(gate.squares()), atol=1e-7)
    assert float(gate.threshold.detach()) ** 2 == pytest.approx(1e-5, rel=1e-3)
    assert gate.deterministic().tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "updates, temperature", [(0, 0.5), (5, 0.255), (10, 0.01), (55, 0.255), (100, 0.5)]
)
def test_the_published_temperature_of_units_falls_in_a_tenth_and_rises_again(updates, temperature):
    config = SelfPinchingConfig(falling_fraction=0.1)
    assert config.temperature_at(updates, 100) == pytest.approx(temperature)
