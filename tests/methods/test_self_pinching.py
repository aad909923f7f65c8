"""Self-pinching on a small Conformer: invariants of the cut, one-pass training, resume."""

import copy
import logging

import pytest
import torch
from tiny_models import encoder, features

from espnet_prune.config import load_yaml
from espnet_prune.errors import ConfigError
from espnet_prune.gates import FixedGate, SelfPinchingGate
from espnet_prune.methods import make_method, method_config, options_of
from espnet_prune.methods.self_pinching import PinchingConfig
from espnet_prune.surgery import cut, inject, load, plan_of, save

WIDE = {"output_size": 32, "linear_units": 96, "num_blocks": 3}
UPDATES = 60
QUICK = {
    "gate": {"score_scaling": "mean"},
    "learning_rate": 0.02,
    "controller": {"kind": "band", "band_strength": 1e-3},
}


def method_of(target: float = 0.5, updates: int = UPDATES, sites=None, **pinching):
    options = {"pinching": pinching} if pinching else {}
    if sites:
        options["sites"] = sites
    return make_method("self_pinching", options, target=target, updates=updates)


def pinched(share: float = 0.4, gone: str = "", **options):
    """A gated encoder whose thresholds close about ``share`` of each site; of ``gone``, all."""
    gated = inject(encoder(**WIDE), method_of(**options)).eval()
    with torch.no_grad():
        for name in gated.gate_names():
            gate = gated.gate(name)
            if isinstance(gate, SelfPinchingGate):
                squares = gate.squares()
                reached = squares.max() * 2 if name == gone else squares.quantile(share)
                gate.threshold.copy_(reached.sqrt())
    return gated


def optimizers_of(method, gated):
    weights = torch.optim.AdamW(gated.model.parameters(), lr=1e-3)
    return weights, torch.optim.Adam(method.parameter_groups(gated))


def train(method, gated, optimizers, updates: int) -> None:
    """One pass: the task is to keep the features' mean near a constant."""
    feats, lengths = features()
    gated.train()
    for _ in range(updates):
        task = (gated(feats, lengths)[0] - 0.5).square().mean()
        (task + method.loss(gated)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        gated.after_update()


def check(gated, masks=None) -> torch.nn.Module:
    """Masked equals cut, and the tensors are as small as the budget says."""
    masks = gated.hard_masks() if masks is None else masks
    small = cut(gated.eval(), masks)
    gated.masks = lambda: masks
    with torch.no_grad():
        difference = (gated(*features())[0] - small(*features())[0]).abs().max()
    assert float(difference) < 5e-6
    kept = sum(p.numel() for p in small.parameters())
    assert kept == gated.budget.total - gated.budget.prunable + gated.budget.hard(masks)
    return small


def test_at_the_start_all_is_open_and_the_output_is_the_stock_model_s():
    with torch.no_grad():
        stock = encoder(**WIDE)(*features())[0]
        gated = inject(encoder(**WIDE), method_of()).eval()
        assert torch.equal(gated(*features())[0], stock)
    assert gated.hard_sparsity() == 0.0
    assert set(gated.model.state_dict()) == set(encoder(**WIDE).state_dict())


@pytest.mark.parametrize("name", ["self_pinching", "self_pinching_weights"])
def test_bfloat16_weights_start_open_too(name):
    feats, lengths = features()
    model = encoder(**WIDE).bfloat16()
    with torch.no_grad():
        stock = model(feats.bfloat16(), lengths)[0]
        options = {"pinching": {"gate": {"initial_drop_rate": 0.0}}}
        gated = inject(model, make_method(name, options)).eval()
        assert gated.hard_sparsity() == 0.0
        assert torch.equal(gated(feats.bfloat16(), lengths)[0], stock)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_masked_equals_cut(share):
    assert check(pinched(share)) is not None


@pytest.mark.parametrize(
    "group",
    ["block.0.attention.heads", "block.1.macaron.units", "block.2.convolution.channels"],
)
def test_masked_equals_cut_with_a_whole_branch_gone(group):
    gated = pinched(gone=group)
    branch = group.rsplit(".", 1)[0]
    assert float(gated.hard_masks()[branch]) == 0.0
    check(gated)


def test_masked_equals_cut_on_the_front_end():
    check(pinched(sites=["front_end_channel", "convolution_channel"]))


@pytest.mark.parametrize("training", [True, False])
def test_the_expected_size_is_the_hard_size(training):
    gated = pinched().train(training)
    expected = float(gated.expected_sparsity().detach())
    assert expected == pytest.approx(gated.hard_sparsity(), abs=1e-12)
    assert 0.3 < expected < 0.5


def test_saved_and_loaded_strictly_gives_equal_outputs(tmp_path):
    small = check(pinched())
    loaded = load(save(small, tmp_path / "small"))
    with torch.no_grad():
        assert torch.equal(loaded(*features())[0], small(*features())[0])
    assert plan_of(loaded) == plan_of(small)


@pytest.mark.parametrize("controller", ["band", "lagrangian"])
@pytest.mark.parametrize("target", [0.3, 0.6])
def test_one_pass_trains_weights_and_thresholds_towards_the_target(controller, target):
    lagrangian = {"kind": "lagrangian", "learning_rate": 0.5}
    chosen = lagrangian if controller == "lagrangian" else QUICK["controller"]
    method = method_of(target, **{**QUICK, "controller": chosen})
    gated = inject(encoder(**WIDE), method)
    before = copy.deepcopy(gated.model.state_dict())
    train(method, gated, optimizers_of(method, gated), UPDATES)
    assert abs(gated.hard_sparsity() - target) < 0.1
    assert not torch.equal(
        gated.model.state_dict()["encoders.0.feed_forward.w_1.weight"],
        before["encoders.0.feed_forward.w_1.weight"],
    )
    masks = method.masks(gated.eval())
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(target, abs=method.config.budget.tolerance)
    check(gated, masks)


def test_the_temperature_ends_where_the_published_schedule_ends():
    method = method_of()
    gated = inject(encoder(**WIDE), method)
    train(method, gated, optimizers_of(method, gated), 2)
    gate = gated.gate("block.0.attention.heads")
    assert float(gate.temperature) == pytest.approx(method.options.gate.temperature_at(2, UPDATES))
    gate.advance(UPDATES)
    assert float(gate.temperature) == pytest.approx(0.01)


def test_interrupted_and_resumed_equals_unbroken():
    method = method_of(**QUICK)
    unbroken = inject(encoder(**WIDE), method)
    train(method, unbroken, optimizers_of(method, unbroken), 10)

    first = inject(encoder(**WIDE), method)
    states = optimizers_of(method, first)
    train(method, first, states, 5)
    second = inject(encoder(seed=9, **WIDE), method)
    second.load_state_dict(first.state_dict())
    resumed = optimizers_of(method, second)
    for old, new in zip(states, resumed, strict=True):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    train(method, second, resumed, 5)
    state = second.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in unbroken.state_dict().items())


def test_what_the_thresholds_missed_is_said_and_closed_by_one_factor(caplog):
    method = method_of(0.6)
    gated = pinched(0.3)
    learned = gated.hard_sparsity()
    with caplog.at_level(logging.WARNING):
        masks = method.masks(gated)
    assert f"{100 * (0.6 - learned):.2f} points" in caplog.text
    ratios = {n: gated.gate(n).ratios() for n in gated.gate_names() if n.endswith("units")}
    kept = torch.cat([r[masks[n] != 0] for n, r in ratios.items()])
    closed = torch.cat([r[masks[n] == 0] for n, r in ratios.items()])
    assert float(kept.min()) >= float(closed.max())


def test_masks_near_the_target_are_the_learned_ones(caplog):
    gated = pinched(0.4)
    method = method_of(gated.hard_sparsity())
    masks = method.masks(gated)
    assert all(torch.equal(mask, masks[name]) for name, mask in gated.hard_masks().items())
    assert not caplog.text


def test_labels_alone_by_default_and_a_teacher_by_option():
    assert not method_of().distillation.needs_teacher
    assert method_of(distill=True).distillation.needs_teacher


def test_the_band_s_lambda_counts_this_model_s_parameters():
    method = method_of()
    gated = inject(encoder(**WIDE), method)
    loss = method.loss(gated)
    assert float(loss.detach()) == pytest.approx(4e-5 * gated.budget.prunable)


def test_the_band_refuses_macs_and_the_lagrangian_takes_them():
    macs = {"budget": {"measure": "macs"}}
    with pytest.raises(ConfigError, match="band counts parameters, not macs"):
        make_method("self_pinching", macs)
    macs["pinching"] = {"controller": {"kind": "lagrangian"}}
    assert make_method("self_pinching", macs)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"temperature": 1.0}, "temperature"),
        ({"gate": {"scoring": "mean"}}, "score_scaling"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"epochs_from_finetuning": -1}, "epochs_from_finetuning"),
        ({"controller": {"kind": "bands"}}, "did you mean 'band'"),
        ({"controller": {"kind": "constraint"}}, "pinching: controller.*constraint"),
        ({"controller": {"kind": "band", "restart": False}}, "restart: False.*band.*leave it out"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ConfigError, match=named):
        method_of(**options)


def test_the_band_is_the_controller_where_no_kind_is_named():
    assert method_of().options.controller.kind == "band"
    assert method_of(controller={"band_width": 0.1}).options.controller.kind == "band"


@pytest.mark.parametrize("sites", [["branch"], ["block", "branch"]])
def test_sites_without_units_are_refused_with_the_remedy(sites):
    with pytest.raises(ConfigError, match="sites.*branch.*none has units.*add.*'head'"):
        method_of(sites=sites)


def test_units_that_the_model_lacks_are_refused_before_the_training():
    pytest.importorskip("transformers")
    from tiny_whisper import whisper

    method = method_of(sites=["convolution_channel", "branch"])
    gated = inject(whisper(), method)
    with pytest.raises(ConfigError, match="sites.*none has units.*'head'.*that this model has"):
        method.parameter_groups(gated)


def test_the_published_gates_are_those_of_the_code_whatever_the_config_says():
    own = {"score_scaling": "mean", "temperature_factor": 2.0, "temperature_end": 0.02}
    method = make_method("self_pinching_published", {"pinching": {"gate": own}}, updates=UPDATES)
    sites = inject(encoder(), method).site_map.sites
    gate = method.make_gate(sites["block.0.feed_forward.units"])
    assert (gate.config.score_scaling, gate.config.temperature_factor) == ("range", 10.0)
    assert (gate.config.falling_fraction, gate.config.initial_drop_rate) == (0.1, 0.0)
    assert gate.config.temperature_end == 0.02 and gate.total_updates == UPDATES
    assert isinstance(method.make_gate(sites["block.0.feed_forward"]), FixedGate)


def test_the_shared_defaults_are_the_published_ones(repository):
    method = load_yaml(repository / "conf/pinch.yaml")["method"]
    own = options_of("self_pinching", method)
    assert method_config("self_pinching", own, "pinch.yaml").pinching == PinchingConfig()
