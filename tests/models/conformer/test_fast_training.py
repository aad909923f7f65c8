"""The faster training pass: ESPnet's outputs and gradients, with gates, cut, frozen or not."""

import copy

import pytest
import torch
from tiny_encoders import tiny_encoder
from tiny_models import AllSites, encoder, features, random_mask

from espnet_prune.budget import resolve
from espnet_prune.models.conformer.fast_training import slow_down_training, speed_up_training
from espnet_prune.sites import UNIT_KINDS
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.holding import holding


def gradients(model: torch.nn.Module, frozen: bool) -> tuple[torch.Tensor, dict]:
    """What a training pass gives, padded frames left out, and the gradients of all parameters."""
    model.train()
    if frozen:
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.eval()
    encoded, lengths, _ = model(*features())
    inside = (torch.arange(encoded.shape[1]) < lengths[:, None])[..., None]
    (encoded * inside).square().sum().backward()
    return encoded * inside, {name: p.grad for name, p in model.named_parameters()}


def check_same(stock: torch.nn.Module, fast: torch.nn.Module, frozen: bool) -> None:
    assert speed_up_training(fast) == 2 * len(fast.encoders) + 4  # two convolutions, two rectifiers
    expected, wanted = gradients(stock, frozen)
    found, got = gradients(fast, frozen)
    assert float((expected - found).abs().max().detach()) < 1e-5
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        limit = 1e-4 * float(gradient.abs().max()) + 1e-4
        if not frozen and name.endswith("depthwise_conv.bias"):
            limit += 1e-6 * largest  # 0 before the norm that follows, but for rounding
        assert float((gradient - got[name]).abs().max()) < limit, name


@pytest.mark.parametrize("frozen", [True, False])
def test_outputs_and_gradients_are_espnets(frozen):
    check_same(encoder(), encoder(), frozen)


def test_a_cut_encoder_too():
    gated = inject(encoder(), AllSites(UNIT_KINDS, learned=False)).eval()
    masks = {n: random_mask(s, False, first_stays=True) for n, s in gated.site_map.sites.items()}
    small = cut(gated, resolve(gated.site_map, masks))
    check_same(small, copy.deepcopy(small), True)


def test_masks_act_and_their_gradients_are_the_same():
    found = []
    for fast in (False, True):
        gated = inject(encoder(), AllSites(UNIT_KINDS, learned=False)).eval()
        if fast:
            speed_up_training(gated.model)
        masks = {n: random_mask(s, True) for n, s in gated.site_map.sites.items()}
        masks = {name: mask.requires_grad_() for name, mask in masks.items()}
        with holding(gated, masks):
            gated.model(*features())[0][:, :20].square().sum().backward()
        found.append({name: m.grad for name, m in masks.items() if m.grad is not None})
    for name, gradient in found[0].items():
        assert float((gradient - found[1][name]).abs().max()) < 1e-4 * float(gradient.abs().max())


def test_it_is_taken_back_and_is_not_saved_with_the_model():
    model = encoder()
    state = set(model.state_dict())
    speed_up_training(model)
    assert set(model.state_dict()) == state
    twin = copy.deepcopy(model)
    twin.encoders[0].conv_module.pointwise_conv2.weight.data.zero_()
    twin.encoders[0].conv_module.pointwise_conv2.bias.data.zero_()
    x = torch.randn(1, 5, model.output_size())
    assert not twin.encoders[0].conv_module(x).any(), "a copy computes with its own weights"
    slow_down_training(model)
    assert all("forward" not in module.__dict__ for module in model.modules())


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("conformer", {"rel_pos_type": "latest", "input_layer": "conv2d6", "use_sdpa": True}),
        ("conformer", {"rel_pos_type": "legacy", "normalize_before": False}),
        ("transformer", {"input_layer": "conv2d8"}),
        ("e_branchformer", {}),
        ("multiconvformer", {}),
    ],
)
def test_other_kinds_of_encoders_keep_outputs_and_gradients(family, options):
    """Whatever is faster of them: parts that it doesn't know go ESPnet's own way."""
    stock, fast = tiny_encoder(family, **options), tiny_encoder(family, **options)
    assert speed_up_training(fast) > 0
    expected, wanted = gradients(stock, True)
    found, got = gradients(fast, True)
    assert torch.allclose(expected, found, atol=1e-5)
    for name, gradient in wanted.items():
        if gradient is not None:
            limit = 1e-4 * float(gradient.abs().max()) + 1e-4
            assert float((gradient - got[name]).abs().max()) < limit, name
