"""Truncated matrices and ACIP: directions in closed form, pressure, order."""

import pytest
import torch
from tiny_models import encoder, features, passes_of

from espnet_prune.budget import GrowingPressure
from espnet_prune.errors import ConfigError
from espnet_prune.methods import make_method
from espnet_prune.methods.low_rank import output_grams
from espnet_prune.surgery import inject
from espnet_prune.surgery.holding import holding

WIDE = {"output_size": 32, "linear_units": 96}
FIRST = "block.1.feed_forward.w_1"


def gated_by(method, model=None):
    return inject(model or encoder(**WIDE), method).eval()


def test_directions_by_outputs_leave_the_least_error_of_so_many():
    method = make_method("low_rank", target=0.6)
    gated = gated_by(method)
    passes = passes_of(gated, 3)
    site = gated.site_map.sites[FIRST]
    gram = output_grams(gated, [site], passes)[0]
    masks = method.masks(gated, passes)
    kept = int(masks[FIRST].sum())
    assert 0 < kept < site.units and masks[FIRST][:kept].all(), "those that hold most stay"
    left = gram - site.layer.basis.double() @ site.layer.basis.double().T @ gram
    best, whole = torch.linalg.eigvalsh(gram).flip(0)[site.units :].sum(), gram.trace()
    assert float(left.trace() / whole) == pytest.approx(float(best / whole), abs=1e-6)


def test_outputs_lose_less_by_their_own_directions_than_by_the_weights():
    def distance(basis: str) -> float:
        method = make_method("low_rank", {"basis": basis}, target=0.5)
        gated = gated_by(method)
        passes = passes_of(gated, 3)
        masks = method.masks(gated, passes) if basis == "outputs" else method.masks(gated)
        with torch.no_grad(), holding(gated, masks):
            seen = gated.model(*features())[0]
        with torch.no_grad():
            return float((seen - encoder(**WIDE)(*features())[0]).square().mean())

    assert distance("outputs") < distance("weights")


class Gates:
    """What a controller sees of gates whose masks' gradients sum to 8."""

    sparsity = 0.0

    def sparsity_moved(self, amount: float) -> float:
        return self.sparsity

    def felt(self) -> float:
        return 8.0


def test_the_pressure_grows_until_the_size_is_reached_and_rests_there():
    pressure, gates, pull = (
        GrowingPressure(start=0.25, growth=3.0, every=2),
        Gates(),
        torch.ones(()),
    )
    for expected in (0.0, 2.0, 6.0, 6.0, 18.0):
        assert float(pressure(pull, 0.4)) == pytest.approx(expected)
        pressure.hold(gates)
    gates.sparsity = 0.4
    pressure.hold(gates)
    assert float(pressure(pull, 0.4)) == 0.0 and float(pressure.values()["pressure"]) == 0.0
    gates.sparsity = 0.3
    pressure.hold(gates)
    assert float(pressure(pull, 0.4)) >= 18.0


def test_the_first_weight_is_what_the_loss_pulls_with_whatever_its_scale():
    pressure, gates = GrowingPressure(start=1.0, growth=1.0, every=1), Gates()
    (1024 * pressure(torch.ones((), requires_grad=True), 0.4)).backward()
    pressure.hold(gates)
    assert float(pressure.weight) == pytest.approx(8 / 1024)


def test_in_evaluation_the_pressure_does_not_look_for_the_scale_of_a_loss():
    pressure, pull = GrowingPressure(start=1.0, growth=1.0, every=1), torch.ones(())
    assert not pressure(pull, 0.4).requires_grad
    pressure.hold(Gates())
    (1024 * pressure.eval()(pull.requires_grad_(), 0.4)).backward()
    assert pressure.scale == 1.0 and float(pull.grad) == 1024 * 8


def test_what_is_pressed_is_the_mean_of_all_scores_without_signs():
    method = make_method("acip", target=0.3)
    gated = inject(encoder(), method).eval()
    gates = list(gated.gates.values())
    with torch.no_grad():
        gated.controller.weight.fill_(2.0)
        for gate in gates:
            gate.scores.fill_(-0.5)
        gates[0].scores.fill_(1.5)
    total = sum(gate.units for gate in gates)
    mean = (1.5 * gates[0].units + 0.5 * (total - gates[0].units)) / total
    assert float(method.loss(gated).detach()) == pytest.approx(2 * mean)


def test_directions_that_the_loss_does_not_need_go_first():
    model = encoder()
    layer = model.encoders[0].feed_forward.w_1
    with torch.no_grad():  # of rank 3, so further directions give nothing
        left, values, right = torch.linalg.svd(layer.weight, full_matrices=False)
        layer.weight.copy_(left[:, :3] * values[:3] @ right[:3])
        dense = model(*features())[0]
    method = make_method("acip", {"pressure": {"growth": 1.05, "every": 1}}, target=0.3)
    gated = inject(model, method).train()
    optimizer = torch.optim.Adam(method.parameter_groups(gated))
    for _ in range(30):
        loss = (gated(*features())[0] - dense).square().mean() + method.loss(gated)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gated.after_update()
    masks = method.masks(gated.eval())
    assert float(gated.budget.sparsity(gated.budget.hard(masks))) == pytest.approx(0.3, abs=0.005)
    scores = gated.gate("block.0.feed_forward.w_1").scores.detach()
    assert float(scores[:3].mean()) > float(scores[3:].mean())


@pytest.mark.parametrize("name", ["low_rank", "acip"])
def test_macs_are_refused(name):
    with pytest.raises(ConfigError, match="budget: measure: macs of low-rank layers"):
        make_method(name, {"budget": {"measure": "macs"}})
