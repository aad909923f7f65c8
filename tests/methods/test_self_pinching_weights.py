"""Self-pinching on single weights: masked equals zeroed, stored sparse, loaded strictly."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import encoder, features

from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.methods import make_method
from espnet_prune.methods.self_pinching_weights import _shares
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.sparse import MASK, VALUES, count_zeroed, hold_zeros

MATRICES = 2 * (5 + 2 + 2)
NAME = "encoders.0.self_attn.linear_q.weight"


def method_of(target: float = 0.5, updates: int = 40, **options):
    return make_method("self_pinching_weights", options, target=target, updates=updates)


def pinched(share: float = 0.6):
    """A gated encoder whose thresholds close about ``share`` of each matrix."""
    gated = inject(encoder(), method_of()).eval()
    with torch.no_grad():
        for gate in gated.gates.values():
            gate.threshold.copy_(gate.squares().quantile(share).sqrt())
    return gated


def encoded(model) -> torch.Tensor:
    with torch.no_grad():
        return model(*features())[0]


def test_every_linear_weight_of_attention_and_feed_forward_is_counted():
    gated = inject(encoder(), method_of())
    assert len(gated.gate_names()) == MATRICES
    expected = 2 * (5 * 16 * 16 + 4 * 16 * 24)
    assert gated.budget.prunable == expected
    assert gated.budget.total == sum(p.numel() for p in gated.model.parameters())


def test_the_start_is_open_up_to_the_stated_quantile():
    gated = inject(encoder(), method_of()).eval()
    assert 0 < gated.hard_sparsity() <= 0.01
    config = {"pinching": {"gate": {"initial_drop_rate": 0.0}}}
    gated = inject(encoder(), method_of(**config)).eval()
    assert gated.hard_sparsity() == 0
    assert torch.equal(encoded(gated), encoded(encoder()))


@pytest.mark.parametrize("share", [0.3, 0.65, 1.0])
def test_masked_equals_zeroed_bit_for_bit(share):
    gated = pinched(share)
    small = cut(gated)
    assert torch.equal(encoded(gated), encoded(small))
    kept = gated.budget.hard(gated.hard_masks())
    assert count_zeroed(small) == gated.budget.prunable - kept
    assert {n: p.shape for n, p in small.named_parameters()} == {
        n: p.shape for n, p in encoder().named_parameters()
    }
    assert plan_of(small) is None


def test_the_expected_size_is_the_hard_size():
    gated = pinched()
    assert float(gated.expected_sparsity().detach()) == pytest.approx(gated.hard_sparsity())


def test_one_pass_reaches_the_target_and_trains_what_is_kept():
    pinching = {"learning_rate": 0.02, "gate": {"score_scaling": "mean"}}
    pinching["controller"] = {"kind": "band", "band_strength": 1e-2}
    method = method_of(0.6, **{"pinching": pinching})
    gated = inject(encoder(), method).train()
    before = copy.deepcopy(gated.model.state_dict())
    weights = torch.optim.AdamW(gated.model.parameters(), lr=1e-3)
    thresholds = torch.optim.Adam(method.parameter_groups(gated))
    for _ in range(40):
        task = (gated(*features())[0] - 0.5).square().mean()
        (task + method.loss(gated)).backward()
        for optimizer in (weights, thresholds):
            optimizer.step()
            optimizer.zero_grad()
        gated.after_update()
    assert abs(gated.eval().hard_sparsity() - 0.6) < 0.05
    assert not torch.equal(gated.model.state_dict()[NAME], before[NAME])
    masks = method.masks(gated)
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(0.6, abs=method.config.budget.tolerance)


def test_saved_sparse_smaller_and_loaded_equal(tmp_path):
    small = cut(pinched(0.75))
    sparse, dense = save(small, tmp_path / "sparse"), save(encoder(), tmp_path / "dense")
    loaded = load(sparse)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in small.state_dict().items())
    stored = load_file(sparse / "model.safetensors")
    assert sum(k.endswith(MASK) for k in stored) == sum(k.endswith(VALUES) for k in stored)
    assert sum(k.endswith(MASK) for k in stored) == MATRICES
    weights = sum(v.numel() for k, v in stored.items() if k.endswith(VALUES))
    bits = sum(v.numel() for k, v in stored.items() if k.endswith(MASK))
    total = sum(small.get_parameter(n).numel() for n in small.espnet_prune_sparse)
    saved = 4 * (total - weights) - bits
    bytes_of = [(f / "model.safetensors").stat().st_size for f in (sparse, dense)]
    overhead = 300 * MATRICES  # two names of tensors instead of one in the file's header
    assert abs(bytes_of[1] - bytes_of[0] - saved) < overhead
    again = save(loaded, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (sparse / "model.safetensors").read_bytes()


def test_a_matrix_that_is_all_zero_can_be_saved(tmp_path):
    gated = pinched()
    with torch.no_grad():
        gated.gate("block.0.self_attn.linear_q").threshold.fill_(1e6)
    loaded = load(save(cut(gated), tmp_path / "m"))
    assert not loaded.get_parameter(NAME).any()


def damaged(tmp_path, change):
    folder = save(cut(pinched()), tmp_path / "m")
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop(NAME + MASK), "mask or values are missing"),
        (lambda s: s.update({NAME + VALUES: s[NAME + VALUES][:-1].clone()}), "don't make up"),
        (lambda s: s.update({NAME + MASK: s[NAME + MASK][:-1].clone()}), "don't make up"),
        (lambda s: s.update({NAME + MASK: s[NAME + MASK].float()}), "don't make up"),
        (lambda s: s.update({"another": torch.zeros(1)}), "unexpected: another"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, change, message):
    with pytest.raises(ModelError, match=f"model.safetensors.*{message}"):
        load(damaged(tmp_path, change))


def test_zeros_are_held_while_the_rest_is_trained():
    small = cut(pinched())
    zeros = small.get_parameter(NAME) == 0
    optimizer = torch.optim.AdamW(small.parameters(), lr=0.1)
    hold_zeros(small, optimizer)
    before = small.get_parameter(NAME).detach().clone()
    small(*features())[0].square().mean().backward()
    optimizer.step()
    after = small.get_parameter(NAME).detach()
    assert torch.equal(after == 0, zeros)
    assert not torch.equal(after, before)


@pytest.mark.parametrize("kind", ["band", "lagrangian"])
def test_macs_are_refused(kind):
    with pytest.raises(ConfigError, match="macs"):
        method_of(budget={"measure": "macs"}, pinching={"controller": {"kind": kind}})


def test_the_published_lambda_is_that_of_single_weights():
    gated = inject(encoder(), method_of())
    assert gated.controller.strength == 2e-5


def test_a_cut_leaves_the_gated_model_as_it_was():
    gated = pinched()
    before = copy.deepcopy(gated.state_dict())
    cut(gated)
    assert all(torch.equal(value, before[name]) for name, value in gated.state_dict().items())
    released = gated.release()
    assert type(released.encoders[0].self_attn.linear_q) is torch.nn.Linear
    assert torch.equal(encoded(released), encoded(encoder()))


@pytest.mark.parametrize("target", [0.2, 0.6])
def test_what_the_thresholds_missed_is_the_same_share_of_every_matrix(target):
    chosen = method_of(target=target)
    gated = inject(encoder(), chosen).eval()
    names = gated.gate_names()
    with torch.no_grad():
        for index, name in enumerate(names):  # from nothing closed to about two thirds
            gated.gate(name).threshold.fill_(
                1e-4 if index % 2 else float(gated.gate(name).squares().quantile(0.66).sqrt())
            )
    learned, masks = gated.hard_masks(), chosen.masks_at_target(gated)
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(target, abs=1e-3)
    more = target > gated.hard_sparsity()
    shares = [
        float((masks[n] != learned[n]).sum() / (learned[n] == float(more)).sum())
        for n in names
        if (learned[n] == float(more)).sum() > 50
    ]
    assert max(shares) - min(shares) < 0.02
    for name in names:  # the least of each matrix go, the largest come back
        ratios = gated.gate(name).ratios()
        kept = masks[name] == 1
        assert kept.all() or ratios[kept].min() >= ratios[~kept].max()


@pytest.mark.parametrize(
    "number, sizes, shares",
    [
        (14, [2, 3, 9], [2, 3, 9]),
        (7, [2, 4, 8], [1, 2, 4]),
        (1, [1, 1], [0, 1]),
        (0, [0, 0], [0, 0]),
    ],
)
def test_a_number_is_shared_out_whole_and_in_proportion(number, sizes, shares):
    assert _shares(number, sizes) == shares
