"""L0's gates that begin in the order of Fisher information."""

import pytest
import torch
from models import encoder, features, passes_of

from espnet_prune.config import to_dataclass
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.methods import MethodConfig, make_method
from espnet_prune.methods.fisher import information_by_cost, mask_gradients, unit_costs
from espnet_prune.surgery import inject

SPREAD = 3.0


def method_of(name: str = "l0_distill", order: str = "fisher", **options):
    given = {"start": {"order": order, "spread": SPREAD}, **options}
    config = to_dataclass(MethodConfig, given, "test")
    return make_method(name, target=0.5, config=config)


def gated_of(method):
    return inject(encoder(), method).eval()


def test_gates_begin_in_the_order_of_information_for_each_parameter():
    method = method_of()
    gated = gated_of(method)
    passes = passes_of(gated)
    starts = method.start(gated, passes)
    information = information_by_cost(gated.budget, mask_gradients(gated, passes))
    assert set(starts) == set(information)
    begin, measured = torch.cat(list(starts.values())), torch.cat(list(information.values()))
    assert torch.equal(torch.argsort(begin), torch.argsort(measured))
    top = method.config.gate.initial_log_alpha
    assert float(begin.max()) == pytest.approx(top)
    assert float(begin.min()) == pytest.approx(top - SPREAD)


def test_a_gate_begins_by_the_share_of_the_size_that_goes_before_it():
    method = method_of()
    gated = gated_of(method)
    starts = method.start(gated, passes_of(gated))
    costs = unit_costs(gated.budget, list(starts))
    top = method.config.gate.initial_log_alpha
    middle = top - SPREAD / 2
    below = sum(costs[n] * int((values < middle).sum()) for n, values in starts.items())
    whole = sum(costs[n] * len(values) for n, values in starts.items())
    assert below / whole == pytest.approx(0.5, abs=max(costs.values()) / whole)


def test_the_schedule_begins_at_the_size_of_the_start():
    method = method_of()
    gated = gated_of(method)
    before = float(gated.start_sparsity)
    gated.begin(method.start(gated, passes_of(gated)))
    assert float(gated.start_sparsity) == pytest.approx(float(gated.expected_sparsity().detach()))
    assert before < float(gated.start_sparsity) < method.target
    assert method.target_now(gated) == pytest.approx(float(gated.start_sparsity))


def test_branches_begin_as_before_and_no_gate_beyond_its_limits():
    method = method_of(gate={"initial_drop_rate": 0.1}, start={"order": "fisher", "spread": 9})
    gated = gated_of(method)
    branch = "block.0.feed_forward"
    before = gated.gate(branch).log_alpha.clone()
    gated.begin(method.start(gated, passes_of(gated)))
    assert torch.equal(gated.gate(branch).log_alpha, before)
    lowest = min(float(gate.log_alpha.detach().min()) for gate in gated.gates.values())
    assert lowest == pytest.approx(-4.605, abs=1e-3)


@pytest.mark.parametrize("name", ["l0_distill", "l0", "self_pinching"])
def test_alike_looks_at_no_data(name):
    method = method_of(name, order="alike")
    gated = gated_of(method)
    before = [p.clone() for p in gated.gates.parameters()]
    assert method.calibration_utterances == 0
    gated.begin(method.start(gated, []))
    assert all(torch.equal(a, b) for a, b in zip(before, gated.gates.parameters(), strict=True))


def test_passes_are_asked_for():
    method = method_of()
    with pytest.raises(ConfigError, match="needs calibration data"):
        method.start(gated_of(method), [])


def test_a_start_of_another_model_is_named():
    gated = gated_of(method_of())
    for name, values in (
        ("block.9.feed_forward.units", torch.zeros(24)),
        ("block.0.feed_forward.units", torch.zeros(7)),
    ):
        with pytest.raises(ModelError, match=name.replace(".", r"\.")):
            gated.begin({name: values})


def test_a_search_of_widths_has_no_such_start():
    with pytest.raises(ConfigError, match="start: order: fisher.*nas"):
        method_of("nas")


def test_an_unknown_order_and_a_spread_out_of_range_are_named():
    with pytest.raises(ConfigError, match="start: order"):
        method_of(order="random")
    with pytest.raises(ConfigError, match="start: spread"):
        method_of(start={"spread": 10})


def test_the_model_still_runs_after_the_start():
    method = method_of()
    gated = gated_of(method)
    gated.begin(method.start(gated, passes_of(gated)))
    assert torch.isfinite(gated.train()(*features())[0]).all()
