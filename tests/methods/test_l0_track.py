"""L0's gates that are shifted where the loss term leaves them behind the schedule."""

import pytest
import torch
from models import encoder

from espnet_prune.config import to_dataclass
from espnet_prune.errors import ConfigError
from espnet_prune.methods import MethodConfig, make_method
from espnet_prune.surgery import inject

UPDATES = 60
KINDS = ("lagrangian", "constraint")


def method_of(name: str = "l0_distill", **options):
    return make_method(
        name, target=0.5, updates=UPDATES, config=to_dataclass(MethodConfig, options, "test")
    )


def sparsities(method, push: float = 100.0) -> list[tuple[float, float]]:
    """Wanted and expected sparsity after each update, while a task pushes gates open."""
    gated = inject(encoder(), method).train()
    optimizer = torch.optim.Adam(method.parameter_groups(gated))
    pairs = []
    for _ in range(UPDATES):
        loss = method.loss(gated)
        for gate in gated.gates.values():
            loss = loss - push * gate.log_alpha.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gated.after_update()
        pairs.append((method.target_now(gated), float(gated.expected_sparsity().detach())))
    return pairs


@pytest.mark.parametrize("kind", KINDS)
def test_the_schedule_is_followed_though_the_task_pushes_harder(kind):
    left = sparsities(method_of(controller={"kind": kind}))
    assert left[-1][1] < 0.1
    followed = sparsities(method_of(controller={"kind": kind, "track": True}))
    assert all(reached == pytest.approx(wanted, abs=1e-3) for wanted, reached in followed)


def test_a_shift_keeps_the_order_of_the_gates_and_goes_one_way():
    gated = inject(encoder(), method_of(controller={"track": True}))
    generator = torch.Generator().manual_seed(0)
    for gate in gated.gates.values():
        gate.log_alpha.data.add_(0.5 * torch.randn(gate.units, generator=generator))
    before = torch.cat([gate.log_alpha.detach().clone() for gate in gated.gates.values()])
    gated.follow(0.3)
    after = torch.cat([gate.log_alpha.detach().clone() for gate in gated.gates.values()])
    assert torch.allclose(before - after, (before - after)[0].expand_as(before), atol=1e-5)
    assert float(gated.expected_sparsity().detach()) == pytest.approx(0.3, abs=1e-3)
    gated.follow(0.1)
    assert float(gated.expected_sparsity().detach()) == pytest.approx(0.3, abs=1e-3)


def test_gates_that_have_settled_stay():
    method = method_of(controller={"track": True}, gate={"settle_fraction": 0.5})
    gated = inject(encoder(), method).train()
    for _ in range(UPDATES // 2):
        gated.after_update()
    before = [gate.log_alpha.detach().clone() for gate in gated.gates.values()]
    gated.follow(0.9)
    after = [gate.log_alpha.detach() for gate in gated.gates.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_methods_without_such_gates_refuse_it():
    with pytest.raises(ConfigError, match="controller: track.*nas"):
        method_of("nas", controller={"track": True})
    with pytest.raises(ConfigError, match="pinching: controller: track"):
        method_of("self_pinching", pinching={"controller": {"kind": "lagrangian", "track": True}})


def test_the_band_doesn_t_track():
    with pytest.raises(ConfigError, match="controller: track"):
        method_of(controller={"kind": "band", "track": True})
