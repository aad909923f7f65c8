"""Every method reaches its target on a small encoder, with consistent masks."""

import pytest
import torch
import torch.nn.utils.prune
from safetensors.torch import save_file
from tiny_models import encoder, features, passes_of

from espnet_prune.errors import ConfigError
from espnet_prune.methods import METHODS, L0Distill, make_method
from espnet_prune.sites import WEIGHT
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.sparse import count_zeroed

WIDE = {"output_size": 32, "linear_units": 96, "num_blocks": 3}
TWO_HEADS = {"output_size": 64, "attention_heads": 2, "linear_units": 48, "num_blocks": 4}


def sparsity(gated, masks) -> float:
    return float(gated.budget.sparsity(gated.budget.hard(masks)))


def train_gates(method: L0Distill, gated, updates: int) -> None:
    """The size term and a task that hardly counts, with the method's own optimiser groups."""
    optimizer = torch.optim.Adam(method.parameter_groups(gated))
    gated.train()
    for _ in range(updates):
        loss = method.loss(gated) + 1e-6 * gated(*features())[0].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gated.after_update()
    gated.eval()


MEASURED_ELSEWHERE = {"importance", "module_error"}
FEED_FORWARDS_ALONE = ("prunenet", 0.7)  # which are less than that
DEEPER = {"flexigpt": {"num_blocks": 5}}  # one block of three stays whole, which is too much


@pytest.mark.parametrize(
    "name", sorted(set(METHODS) - MEASURED_ELSEWHERE - {"unpruned", "performer"})
)
@pytest.mark.parametrize("target", [0.3, 0.7])
def test_the_reached_sparsity_is_within_half_a_point(name, target):
    if (name, target) == FEED_FORWARDS_ALONE:
        target = 0.4
    method = make_method(name, target=target, seed=1, updates=200)
    gated = inject(encoder(**{**WIDE, **DEEPER.get(name, {})}), method).eval()
    if method.learns_masks:
        train_gates(method, gated, 200)
    looks_at_data = method.calibration_utterances > 0
    masks = method.masks(gated, passes_of(gated)) if looks_at_data else method.masks(gated)
    assert sparsity(gated, masks) == pytest.approx(target, abs=method.config.budget.tolerance)
    small = cut(gated, masks)
    removed = sum(p.numel() for p in gated.model.parameters()) - sum(
        p.numel() for p in small.parameters()
    )
    removed += count_zeroed(small)  # single weights leave zeros in tensors of the same shape
    assert removed == gated.budget.prunable - gated.budget.hard(masks)
    assert torch.isfinite(small(*features())[0]).all()


@pytest.mark.parametrize(
    "name, seed, target",
    [
        ("magnitude", 0, 0.4),
        ("random", 2, 0.25),
        ("random", 1, 0.4),
        ("random", 0, 0.75),
        ("importance", 2, 0.25),
        ("importance", 1, 0.4),
        ("importance", 0, 0.75),
        ("uniform_magnitude", 0, 0.25),
        ("uniform_magnitude", 0, 0.75),
        ("small_from_scratch", 0, 0.25),
        ("small_from_scratch", 0, 0.75),
        ("l0", 0, 0.25),
    ],
)
def test_where_a_head_is_too_much_finer_units_fill_to_the_target(name, seed, target, tmp_path):
    path = tmp_path / "scores.safetensors"
    options = {"importance": {"file": str(path)}} if name == "importance" else {}
    method = make_method(name, options, target=target, seed=seed)
    gated = inject(encoder(**TWO_HEADS), method).eval()
    save_file(make_method("random", seed=seed).order(gated), path)
    masks = method.masks(gated)
    assert sparsity(gated, masks) == pytest.approx(target, abs=method.config.budget.tolerance)
    cut(gated, masks)


@pytest.mark.parametrize("seed, target", [(2, 0.25), (1, 0.75), (2, 0.75)])
def test_learned_gates_are_filled_to_the_target_too(seed, target):
    method = make_method("l0", target=target)
    gated = inject(encoder(**TWO_HEADS), method).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for gate in gated.gates.values():
            gate.log_alpha.copy_(8 * torch.rand(gate.units, generator=generator) - 4)
    masks = method.masks(gated)
    assert sparsity(gated, masks) == pytest.approx(target, abs=method.config.budget.tolerance)
    cut(gated, masks)


def test_whole_blocks_reach_a_target_that_they_hit_exactly():
    method = make_method("l0", {"sites": ["block"]}, target=1 / 3)
    gated = inject(encoder(num_blocks=6), method).eval()
    with torch.no_grad():
        for block in range(6):
            gated.gate(f"block.{block}").log_alpha.fill_((5, 2, 6, 1, 4, 3)[block] / 2)
    assert gated.hard_sparsity() == 0
    masks = method.masks(gated)
    closed = [block for block in range(6) if not masks[f"block.{block}"].any()]
    assert closed == [1, 3] and sparsity(gated, masks) == pytest.approx(1 / 3, abs=1e-12)


def test_unpruned_keeps_everything_and_takes_no_other_target():
    method = make_method("unpruned", target=0.0)
    gated = inject(encoder(**WIDE), method).eval()
    masks = method.masks(gated)
    assert all(bool((mask == 1).all()) for mask in masks.values())
    assert torch.equal(cut(gated, masks)(*features())[0], gated.model(*features())[0])
    with pytest.raises(ConfigError, match="target: 0.5"):
        make_method("unpruned", target=0.5)


@pytest.mark.parametrize(
    ("kind", "measure"),
    [
        ("lagrangian", "parameters"),
        ("constraint", "macs"),
        pytest.param("lagrangian", "macs", marks=pytest.mark.slow),
        pytest.param("constraint", "parameters", marks=pytest.mark.slow),
    ],
)
def test_learned_size_comes_near_the_target_by_itself(kind, measure):
    options = {"controller": {"kind": kind, "learning_rate": 0.5}, "budget": {"measure": measure}}
    method = make_method("l0_distill", options, target=0.5, updates=600)
    gated = inject(encoder(**WIDE), method)
    train_gates(method, gated, 600)
    assert float(gated.expected_sparsity().detach()) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", ["l0_distill", "l0", "nas"])
def test_the_band_refuses_macs(name):
    options = {"controller": {"kind": "band"}}
    assert make_method(name, options)
    options["budget"] = {"measure": "macs"}
    with pytest.raises(ConfigError, match="controller: kind.*band counts parameters, not macs"):
        make_method(name, options)


def test_target_starts_at_the_measured_sparsity():
    method = L0Distill(target=0.5, updates=100)
    gated = inject(encoder(), method)
    assert method.target_now(gated) == pytest.approx(float(gated.start_sparsity))
    assert 0 < float(gated.start_sparsity) < 0.01


def test_multipliers_ascend_and_weights_do_not_decay_gates():
    method = make_method("l0_distill", {"controller": {"kind": "lagrangian"}}, updates=100)
    gates, multipliers = method.parameter_groups(inject(encoder(), method))
    assert multipliers["maximize"] and multipliers["lr"] > 0
    assert gates["weight_decay"] == multipliers["weight_decay"] == 0.0


def test_l0_without_a_teacher_needs_none():
    assert not make_method("l0").distillation.needs_teacher
    assert make_method("l0_distill").distillation.needs_teacher


def test_random_depends_on_the_seed_alone():
    def masks(seed):
        method = make_method("random", target=0.5, seed=seed)
        return torch.cat(list(method.masks(inject(encoder(), method).eval()).values()))

    assert torch.equal(masks(1), masks(1))
    assert not torch.equal(masks(1), masks(2))


def test_unknown_method_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'magnitude'"):
        make_method("magnitud")


@pytest.mark.parametrize(
    "options, named",
    [
        ({"sites": ["heads"]}, "heads"),
        ({"gate": {"initial_droprate": 0.1}}, "initial_drop_rate"),
        ({"budget": {"measure": "flops"}}, "flops"),
        ({"gate_learning_rate": "fast"}, "gate_learning_rate"),
        ({"warmup_fraction": 2.0}, "warmup_fraction"),
        ({"controller": {"kind": "pid"}}, "pid"),
        (
            {"warmup_fraction": 0.7, "gate": {"settle_fraction": 0.4}},
            r"warmup_fraction: 0\.7: .*settle_fraction: 0\.4",
        ),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ConfigError, match=named):
        make_method("l0_distill", options)


@pytest.mark.parametrize(
    ("name", "options"),
    [("self_pinching_weights", {}), ("l0_distill", {"sites": ["head", "branch"]})],
)
def test_widths_to_align_that_are_not_there_are_named_before_the_training(name, options):
    with pytest.raises(ConfigError, match="budget: align: 8: none of the sites .*leave align at 1"):
        make_method(name, {**options, "budget": {"align": 8}})


def test_a_cut_without_masks_says_so_where_the_gates_learn_none(caplog):
    method = make_method("magnitude", target=0.5)
    gated = inject(encoder(), method).eval()
    cut(gated, method.masks(gated))
    assert not caplog.text
    cut(gated)
    assert "cut: nothing is cut" in caplog.text and "method.masks(gated)" in caplog.text


def test_what_a_method_is_made_with_where_nothing_is_said():
    method = make_method("random")
    assert (method.target, method.seed, method.updates) == (0.5, 0, 1000)


@pytest.mark.parametrize("target", [0.0, 1.0, 2.0])
def test_target_out_of_range(target):
    with pytest.raises(ConfigError, match="target"):
        make_method("l0_distill", target=target)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_range(seed):
    with pytest.raises(ConfigError, match=f"seed: {seed} is out of range"):
        make_method("random", seed=seed)


@pytest.mark.parametrize(
    "name",
    ["magnitude", "random", "fisher", "uniform_magnitude", "folding", "nas", "layer_drop"],
)
def test_sites_without_units_are_refused(name):
    with pytest.raises(ConfigError, match=r"sites: \['branch'.*at least one of head, feed"):
        make_method(name, {"sites": ["branch"]})


@pytest.mark.parametrize("target", [0.3, 0.5])
def test_uniform_magnitude_of_weights_is_what_torch_s_own_pruning_chooses(target):
    method = make_method("uniform_magnitude_weights", target=target)
    gated = inject(encoder(**WIDE), method).eval()
    masks = method.masks(gated)
    for site in gated.site_map.of_kinds((WEIGHT,)):
        layer = torch.nn.Linear(site.layer.in_features, site.layer.out_features)
        layer.weight.data.copy_(site.layer.weight)
        torch.nn.utils.prune.l1_unstructured(layer, "weight", target)
        assert layer.weight_mask.flatten().equal(masks[site.name]), site.name
