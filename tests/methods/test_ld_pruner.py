"""LD-Pruner: shifts of mean and spread in closed form, and the order that follows from them."""

import pytest
import torch
from tiny_models import encoder, features, passes_of

from espnet_prune.methods import make_method
from espnet_prune.methods.dropping import closed, sparsity_without
from espnet_prune.methods.ld_pruner import latents, shift
from espnet_prune.surgery import inject
from espnet_prune.surgery.inputs import first_tensor

WIDE = {"output_size": 32, "linear_units": 96, "num_blocks": 3}


def test_a_shift_sums_both_distances():
    before = [(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))]
    after = [(torch.tensor([4.0, 6.0]), torch.tensor([1.0, 3.0]))]
    assert shift(before, after) == pytest.approx(5 + 2)
    assert shift(before * 2, after + before) == pytest.approx(3.5)


def test_the_latent_is_what_the_encoder_gives():
    gated = inject(encoder(), make_method("ld_pruner")).eval()
    feats, lengths = features(1)
    mean, deviation = latents(gated, {}, [lambda: gated(feats, lengths)])[0]
    with torch.no_grad():
        expected = gated(feats, lengths)[0][0]
    assert torch.allclose(mean, expected.mean(dim=0), atol=1e-6)
    assert torch.allclose(deviation, expected.std(dim=0, correction=0), atol=1e-6)


def test_first_tensor_finds_it_in_tuples_and_mappings():
    value = torch.zeros(1)
    assert first_tensor(((value, 2), 3)) is value
    assert first_tensor({"a": (value,)}) is value


def test_a_branch_that_does_nothing_goes_first_and_the_last_one_in_part():
    model = encoder(**WIDE)
    with torch.no_grad():
        for parameter in model.encoders[1].feed_forward.w_2.parameters():
            parameter.zero_()
    method = make_method("ld_pruner", target=0.4)
    gated = inject(model, method).eval()
    masks = method.masks(gated, passes_of(gated, 2))
    assert not masks["block.1.feed_forward"].any()
    assert float(gated.budget.sparsity(gated.budget.hard(masks))) == pytest.approx(0.4, abs=0.005)
    partly = {
        name.rpartition(".")[0]
        for name, mask in masks.items()
        if mask.any() and not mask.all() and not name.startswith("front_end")
    }
    assert len(partly) == 1, "one branch is thinned"
    gone = [name for name in masks if name.count(".") == 2 and not masks[name].any()]
    assert sparsity_without(gated, gone) <= 0.4 < sparsity_without(gated, [*gone, *partly])
    assert all(not mask.any() for mask in closed(gated, gone).values())
