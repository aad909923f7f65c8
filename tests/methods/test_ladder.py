"""One L0 run passes several sizes; each can be cut within the tolerance when its rung ends."""

import copy

import pytest
import torch
from tiny_models import encoder, features

from espnet_prune.budget import ControllerConfig, Rung, even_rungs
from espnet_prune.errors import ConfigError
from espnet_prune.gates import HardConcreteConfig
from espnet_prune.methods import METHODS, L0Distill, make_method
from espnet_prune.methods.l0_distill import L0Config
from espnet_prune.surgery import cut, inject

WIDE = {"output_size": 32, "linear_units": 96, "num_blocks": 3}
TARGETS = (0.3, 0.5, 0.7)


def test_every_size_is_cut_from_the_state_of_its_own_update():
    *ladder, last = even_rungs(TARGETS, 600)
    controller = ControllerConfig(kind="lagrangian", learning_rate=0.5)
    method = L0Distill(last.target, 0, L0Config(controller=controller), last.updates, ladder)
    gated = inject(encoder(**WIDE), method)
    gated._check_felt = lambda: None  # nothing but the size is trained here
    optimizer = torch.optim.Adam(method.parameter_groups(gated))
    expected = []
    for _ in range(last.updates):
        loss = method.loss(gated.train())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gated.after_update()
        for rung in (*ladder, last):
            if int(gated.updates) == rung.updates:
                masks = method.masks_at(gated.eval(), rung.target)
                reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
                assert reached == pytest.approx(rung.target, abs=method.config.budget.tolerance)
                small = cut(copy.deepcopy(gated), masks)
                assert torch.isfinite(small(*features())[0]).all()
                expected.append(float(gated.expected_sparsity().detach()))
    assert expected == pytest.approx(TARGETS, abs=0.1), "the gates themselves follow the target"


@pytest.mark.parametrize(
    ("ladder", "message"),
    [((Rung(0.7, 10),), "0.5 comes after 0.7"), ((Rung(0.3, 100),), "100 comes after 100")],
)
def test_a_rung_beyond_the_target_or_the_updates_is_refused(ladder, message):
    with pytest.raises(ConfigError, match=message):
        L0Distill(target=0.5, updates=100, ladder=ladder)


def test_gates_that_settle_give_one_size():
    config = L0Config(gate=HardConcreteConfig(settle_fraction=0.4))
    with pytest.raises(ConfigError, match=r"settle_fraction: 0\.4: .*a ladder's go on"):
        make_method("l0", target=0.5, updates=10, config=config, ladder=(Rung(0.3, 5),))


def test_a_method_whose_run_gives_one_size_says_so():
    with pytest.raises(ConfigError, match="ladder: a run of WidthSearch gives one size"):
        make_method("nas", target=0.5, updates=100, ladder=(Rung(0.3, 50),))
    assert {name for name, method in METHODS.items() if method.emits_ladder} == {"l0", "l0_distill"}
