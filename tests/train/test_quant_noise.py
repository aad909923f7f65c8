"""Quant-Noise: which weights an update sees rounded, straight-through gradients, restored after."""

import pytest
import torch
from torch import nn

from espnet_prune.errors import ConfigError
from espnet_prune.methods.options import QuantNoiseConfig, SharpnessConfig, StudentConfig
from espnet_prune.surgery.rounding import FORMS, nearest
from espnet_prune.train.quant_noise import QuantNoise


def noisy(**options):
    weight = nn.Parameter(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)))
    bias = nn.Parameter(torch.randn(6, generator=torch.Generator().manual_seed(1)))
    noise = QuantNoise([weight, bias], QuantNoiseConfig(bits=4, block=4, **options), seed=3)

    def run():
        return weight.square().sum() / 2 + bias.sum(), weight.detach().clone()

    return weight, bias, noise, run


def test_blocks_are_rounded_or_exact_and_the_gradient_goes_straight_through():
    weight, bias, noise, run = noisy(share=0.5)
    before, whole = weight.detach().clone(), nearest(weight, FORMS[4])[0]
    loss, there = noise(run)
    loss.backward()
    changed = (there == whole).view(6, 4, 4).all(dim=2)
    exact = (there == before).view(6, 4, 4).all(dim=2)
    assert (changed | exact).all() and 4 < int(changed.sum()) < 20
    assert torch.equal(weight.grad, there)
    noise.restore()
    assert torch.equal(weight, before) and torch.equal(weight.grad, there)
    assert not torch.equal(noise(run)[1], there), "the next update draws others"


@pytest.mark.parametrize("share, of_all", [(0.0, 0.0), (1.0, 1.0)])
def test_none_or_all(share, of_all):
    weight, _, noise, run = noisy(share=share)
    expected = nearest(weight, FORMS[4])[0] if of_all else weight.detach().clone()
    assert torch.equal(noise(run)[1], expected)


def test_what_can_t_be_together_is_refused():
    with pytest.raises(ConfigError, match="quant_noise: bits: 3"):
        QuantNoiseConfig(bits=3)
    with pytest.raises(ConfigError, match="leave one of quant_noise and sharpness out"):
        StudentConfig(quant_noise=QuantNoiseConfig(bits=4), sharpness=SharpnessConfig("sam"))
