"""Channel-width search on a small Conformer: trained, resumed, fixed at the target."""

import copy

import pytest
import torch
from tiny_models import encoder, features

from espnet_prune.budget import resolve
from espnet_prune.errors import ConfigError
from espnet_prune.gates import WidthChoiceGate
from espnet_prune.methods import make_method
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.holding import holding

WIDE = {"output_size": 32, "linear_units": 96, "num_blocks": 3}
UPDATES = 80


def method_of(target: float = 0.5, measure: str = "parameters"):
    options = {
        "nas": {"fractions": [0.25, 0.5, 0.75, 1]},
        "budget": {"measure": measure},
        "controller": {"kind": "lagrangian", "learning_rate": 1.0},
        "gate_learning_rate": 0.1,
    }
    return make_method("nas", options, target=target, updates=UPDATES)


def optimizers_of(method, gated):
    weights = torch.optim.AdamW(gated.model.parameters(), lr=1e-3)
    return weights, torch.optim.Adam(method.parameter_groups(gated))


def train(method, gated, optimizers, updates: int) -> None:
    """The task is to keep the features' mean near a constant."""
    feats, lengths = features()
    gated.train()
    for _ in range(updates):
        task = (gated(feats, lengths)[0] - 0.5).square().mean()
        (task + method.loss(gated)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        gated.after_update()


@pytest.mark.parametrize("measure", ["parameters", "macs"])
def test_the_learned_size_comes_near_and_the_masks_reach_the_target(measure):
    method = method_of(0.5, measure)
    gated = inject(encoder(**WIDE), method)
    assert float(gated.start_sparsity) < 0.1
    train(method, gated, optimizers_of(method, gated), UPDATES)
    assert float(gated.expected_sparsity().detach()) == pytest.approx(0.5, abs=0.15)
    masks = method.masks(gated.eval())
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(0.5, abs=method.config.budget.tolerance)
    small = cut(gated, masks)
    with torch.no_grad(), holding(gated, masks):
        difference = (gated(*features())[0] - small(*features())[0]).abs().max()
    assert float(difference) < 5e-6


@pytest.mark.parametrize("target", [0.3, 0.6])
def test_what_stays_of_a_site_are_its_largest_units_by_the_teacher_s_magnitudes(target):
    method = method_of(target)
    gated = inject(encoder(**WIDE), method).eval()
    masks = method.masks(gated)
    widths = set()
    for name in gated.gate_names():
        gate = gated.gate(name)
        if isinstance(gate, WidthChoiceGate):
            scores = gated.site_map.sites[name].magnitudes()
            kept = masks[name] != 0
            assert kept.any() and (kept.all() or scores[kept].min() >= scores[~kept].max())
            widths.add(float(kept.float().mean()))
    assert len(widths) > 1


@pytest.mark.parametrize("ask", ["parameter_groups", "masks"])
def test_a_target_beyond_the_narrowest_widths_is_refused(ask):
    method = method_of(0.95)
    gated = inject(encoder(**WIDE), method).eval()
    gates = {n: gated.gate(n) for n in gated.gate_names() if gated.gate(n).units > 1}
    quarters = resolve(gated.site_map, {n: g.widest(g.units // 4) for n, g in gates.items()})
    most = float(gated.budget.sparsity(gated.budget.hard(quarters)))
    message = rf"nas: fractions: \[0\.25, .*remove {100 * most:.1f}%, the target is 95\.0%"
    with pytest.raises(ConfigError, match=message):
        getattr(method, ask)(gated)


def test_expected_size_equals_hard_size_when_the_choices_are_certain():
    gated = inject(encoder(**WIDE), method_of()).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for gate in gated.gates.values():
            if isinstance(gate, WidthChoiceGate):
                gate.logits.fill_(-60.0)
                gate.logits[torch.randint(len(gate.widths), (), generator=generator)] = 60.0
        assert float(gated.expected_sparsity()) == pytest.approx(gated.hard_sparsity(), abs=1e-9)
    assert 0.2 < gated.hard_sparsity() < 0.8


def test_interrupted_and_resumed_equals_unbroken():
    method = method_of()
    unbroken = inject(encoder(**WIDE), method)
    train(method, unbroken, optimizers_of(method, unbroken), 8)

    first = inject(encoder(**WIDE), method)
    states = optimizers_of(method, first)
    train(method, first, states, 4)
    second = inject(encoder(seed=9, **WIDE), method)
    second.load_state_dict(first.state_dict())
    resumed = optimizers_of(method, second)
    for old, new in zip(states, resumed, strict=True):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    train(method, second, resumed, 4)
    state = second.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in unbroken.state_dict().items())
