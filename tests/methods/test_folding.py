"""Model folding as a method: uniform widths at the target, weights merged before the cut."""

import copy

import pytest
import torch
from tiny_models import encoder, features, passes_of

from espnet_prune.errors import ModelError
from espnet_prune.methods import make_method
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.holding import holding

WIDE = {"output_size": 32, "linear_units": 96, "num_blocks": 3}


def folded(target: float = 0.5):
    method = make_method("folding", target=target)
    gated = inject(encoder(**WIDE), method).eval()
    return method, gated, method.masks(gated)


def test_every_site_keeps_as_many_units_as_by_uniform_magnitude():
    _, _, masks = folded()
    method = make_method("uniform_magnitude", target=0.5)
    others = method.masks(inject(encoder(**WIDE), method).eval())
    assert {n: int(m.sum()) for n, m in masks.items()} == {
        n: int(m.sum()) for n, m in others.items()
    }
    assert any(not torch.equal(mask, others[name]) for name, mask in masks.items())


def test_choosing_changes_no_weight_and_rewriting_does():
    method, gated, masks = folded()
    stock = encoder(**WIDE).state_dict()
    assert all(torch.equal(value, stock[key]) for key, value in gated.model.state_dict().items())
    before = copy.deepcopy(gated)
    method.rewrite(gated, masks)
    small = cut(gated, masks)
    with torch.no_grad(), holding(gated, masks):
        masked = gated(*features())[0]
        assert (masked - small(*features())[0]).abs().max() < 5e-6
    with torch.no_grad(), holding(before, masks):
        assert not torch.allclose(masked, before(*features())[0], atol=1e-3)


def test_masks_of_another_method_can_t_be_folded():
    method, gated, masks = folded()
    masks["block.0.attention.heads"] = masks["block.0.attention.heads"].flip(0)
    with pytest.raises(ModelError, match=r"block\.0\.attention\.heads.*by folding"):
        method.rewrite(gated, masks)


def test_repaired_norms_see_what_the_merged_units_give():
    method = make_method("folding_repaired", target=0.5)
    gated = inject(encoder(**WIDE), method).eval()
    passes = passes_of(gated, 3)
    masks = method.masks(gated, passes)
    plain, stock, _ = folded()
    assert all(torch.equal(mask, plain.masks(stock)[name]) for name, mask in masks.items())
    method.compensate(gated, masks, passes)
    plain.rewrite(stock, masks)
    found, expected = gated.model.state_dict(), stock.model.state_dict()
    assert {k for k in found if not torch.equal(found[k], expected[k])} == {
        k for k in found if "running" in k or "num_batches" in k
    }
    seen: list[torch.Tensor] = []
    norm = gated.model.encoders[0].conv_module.norm  # nothing before it depends on another norm
    handle = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad(), holding(gated, masks):
        for run in passes:
            run()
    handle.remove()
    kept = masks["block.0.convolution.channels"] != 0
    means = torch.stack([x.mean(dim=(0, 2)) for x in seen]).mean(dim=0)
    variances = torch.stack([x.transpose(1, 2).flatten(0, 1).var(dim=0) for x in seen]).mean(dim=0)
    assert torch.allclose(norm.running_mean[kept], means[kept], atol=1e-5)
    assert torch.allclose(norm.running_var[kept], variances[kept], rtol=1e-4)
    assert not norm.training and norm.momentum == 0.1
    before = copy.deepcopy(gated.model.state_dict())
    method.rewrite(gated, masks)
    assert all(torch.equal(value, before[key]) for key, value in gated.model.state_dict().items())
