"""Width choice gates against closed forms."""

import math

import pytest
import torch

from espnet_prune.errors import ConfigError
from espnet_prune.gates import WidthChoiceConfig, WidthChoiceGate

SCORES = torch.tensor([0.3, 0.9, 0.1, 0.5, 0.7, 0.2, 0.8, 0.4])
QUARTERS = (0.25, 0.5, 0.75, 1.0)


def gate_of(*logits: float, **options) -> WidthChoiceGate:
    gate = WidthChoiceGate(SCORES, WidthChoiceConfig(fractions=QUARTERS, **options), updates=10)
    if logits:
        with torch.no_grad():
            gate.logits.copy_(torch.tensor(logits))
    return gate


def test_a_width_keeps_the_highest_scores():
    kept = gate_of().widest(3).nonzero()[:, 0].tolist()
    assert kept == sorted(torch.argsort(SCORES, descending=True)[:3].tolist())


def test_a_unit_stays_with_the_probability_of_all_widths_that_hold_it():
    gate = gate_of(0.3, -0.2, 0.5, 0.1)
    p = torch.softmax(gate.logits, dim=0).detach()
    probabilities = gate.probabilities().detach()
    ordered = probabilities[torch.argsort(SCORES, descending=True)]
    expected = [1.0, p[1:].sum(), p[2:].sum(), p[3]]
    assert torch.allclose(
        ordered, torch.stack([torch.as_tensor(e) for e in expected for _ in "ab"])
    )
    assert float(probabilities.sum()) == pytest.approx(float(p @ torch.tensor([2.0, 4, 6, 8])))


def test_the_gradient_of_the_expected_width_is_the_softmax_s():
    gate = gate_of(0.3, -0.2, 0.5, 0.1)
    gate.probabilities().sum().backward()
    p = torch.softmax(gate.logits.detach(), dim=0)
    widths = torch.tensor([2.0, 4.0, 6.0, 8.0])
    assert torch.allclose(gate.logits.grad, p * (widths - p @ widths), atol=1e-6)


def test_cold_samples_are_single_widths_drawn_with_their_probabilities():
    gate = gate_of(0.3, -0.2, 0.5, 0.1, temperature_start=1e-3, temperature_end=1e-3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        drawn = [gate.sample(torch.rand(4, generator=generator)).sum() for _ in range(4000)]
        p = torch.softmax(gate.logits, dim=0)
    widths = torch.stack(drawn)
    assert (widths - widths.round()).abs().mean() < 0.01
    for width, probability in zip((2, 4, 6, 8), p.tolist(), strict=True):
        share = float(((widths - width).abs() < 0.5).float().mean())
        assert share == pytest.approx(probability, abs=0.03)


def test_a_warm_sample_mixes_widths_and_its_gradient_reaches_the_logits():
    gate = gate_of()
    mask = gate.sample(torch.full((4,), 0.5))
    assert ((mask > 0) & (mask <= 1 + 1e-6)).all() and mask.unique().numel() > 1
    mask.square().sum().backward()
    assert gate.logits.grad.abs().min() > 0


def test_a_sample_is_the_softmax_of_logits_and_gumbel_noise():
    noise, logits = (0.1, 0.4, 0.7, 0.95), (0.3, -0.2, 0.5, 0.1)
    gate = gate_of(*logits, temperature_start=0.5)
    exponents = [(x - math.log(-math.log(u))) / 0.5 for x, u in zip(logits, noise, strict=True)]
    total = sum(math.exp(e) for e in exponents)
    w = [math.exp(e) / total for e in exponents]
    mask = gate.sample(torch.tensor(noise)).detach()[torch.argsort(SCORES, descending=True)]
    expected = [1.0, sum(w[1:]), sum(w[2:]), w[3]]
    assert mask.tolist() == pytest.approx([e for e in expected for _ in "ab"], rel=1e-5)


def test_at_evaluation_the_most_probable_width_and_a_shift_that_is_monotone():
    gate = gate_of(0.0, 2.0, 1.0, -1.0).eval()
    assert int(gate().sum()) == 4
    widths = [int(gate.deterministic(shift).sum()) for shift in torch.linspace(-12, 12, 49)]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (2, 8)


def test_the_shift_reaches_both_ends_from_any_allowed_logits():
    gate = gate_of(9.0, -9.0, -9.0, -9.0)
    gate.project()
    assert int(gate.deterministic(12.0).sum()) == 8
    gate = gate_of(-9.0, -9.0, -9.0, 9.0)
    gate.project()
    assert int(gate.deterministic(-12.0).sum()) == 2


def test_expected_width_is_the_chosen_one_once_the_logits_saturate():
    gate = gate_of(-60.0, 60.0, -60.0, -60.0)
    assert torch.equal(gate.probabilities(), gate.deterministic())


@pytest.mark.parametrize("full", [0.5, 0.9])
def test_at_the_start_the_full_width_is_as_probable_as_asked(full):
    gate = gate_of(initial_full=full)
    assert float(torch.softmax(gate.logits, 0)[-1].detach()) == pytest.approx(full)


def test_the_temperature_falls_exponentially_to_its_end():
    gate = gate_of(temperature_start=1.0, temperature_end=0.01)
    gate.advance(5)
    assert float(gate.temperature) == pytest.approx(0.1)
    gate.advance(20)
    assert float(gate.temperature) == pytest.approx(0.01)


def test_few_units_have_few_widths_and_none_is_zero():
    assert WidthChoiceGate(torch.rand(3)).widths.tolist() == [1, 2, 3]
    lonely = WidthChoiceGate(torch.rand(1))
    assert lonely.widths.tolist() == [1] and lonely.eval()().tolist() == [1.0]


def test_saved_and_loaded_is_equal():
    gate, other = gate_of(0.1, 0.2, 0.3, 0.4), WidthChoiceGate(SCORES.flip(0), gate_of().config, 10)
    other.load_state_dict(gate.state_dict())
    noise = torch.rand(4)
    assert torch.equal(gate.sample(noise), other.sample(noise))


@pytest.mark.parametrize(
    "options, named",
    [
        ({"fractions": (0.5, 0.25, 1.0)}, "rising"),
        ({"fractions": (0.25, 0.5)}, "last is 1"),
        ({"fractions": (1.0,)}, "at least two"),
        ({"fractions": (0.0, 1.0)}, "fractions"),
        ({"temperature_end": 2.0}, "temperature_end"),
        ({"initial_full": 1.0}, "initial_full"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ConfigError, match=named):
        WidthChoiceConfig(**options)
