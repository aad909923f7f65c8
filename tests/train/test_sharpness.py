"""Sharpness-aware and compression-aware gradients on a quadratic, where they are known."""

import pytest
import torch
from torch import nn

from espnet_prune.errors import ConfigError
from espnet_prune.methods.options import SharpnessConfig
from espnet_prune.train.sharpness import SharpnessAware, largest

CURVES = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def quadratic(kind: str, rho: float, **options):
    """A weight (2, 2), a bias (2,), and the loss sum(c w^2) / 2 + sum(b^2) / 2."""
    weight = nn.Parameter(torch.tensor([[1.0, -1.0], [0.5, 0.1]]))
    bias = nn.Parameter(torch.tensor([1.0, 2.0]))
    aware = SharpnessAware([weight, bias], SharpnessConfig(kind, rho, **options))

    def run():
        return ((CURVES * weight.square()).sum() + bias.square().sum()) / 2, weight.detach().clone()

    return weight, bias, aware, run


def test_sam_takes_the_gradient_up_the_slope_and_restores_the_weights():
    weight, bias, aware, run = quadratic("sam", 0.5)
    before, gradient = weight.detach().clone(), CURVES * weight.detach()
    norm = torch.cat([gradient.flatten(), bias.detach()]).norm()
    loss, there = aware(run)
    loss.backward()
    climbed = before + 0.5 * gradient / norm
    assert torch.allclose(there, climbed)
    aware.restore()
    assert torch.equal(weight, before)
    assert torch.allclose(weight.grad, CURVES * climbed)
    assert torch.allclose(bias.grad, bias * (1 + 0.5 / norm))


def test_cram_adds_the_plain_gradient_to_that_of_what_is_left():
    weight, bias, aware, run = quadratic("cram", 0.1, sparsities=(0.5,))
    before, gradient = weight.detach().clone(), CURVES * weight.detach()
    loss, there = aware(run)
    loss.backward()
    aware.restore()
    climbed = before + 0.1 * gradient
    kept = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert torch.allclose(there, climbed * kept)
    assert torch.allclose(weight.grad, CURVES * climbed * kept + gradient)
    assert torch.allclose(bias.grad, 1.1 * bias + bias)


def test_the_largest_of_all_matrices_stay():
    weights = [torch.tensor([[1.0, -4.0]]), torch.tensor([0.1]), torch.tensor([[3.0], [2.0]])]
    first, none, second = largest(weights, 0.5)
    assert none is None
    assert first.tolist() == [[0, 1]] and second.tolist() == [[1], [0]]
    assert all(bool(mask.all()) for mask in largest(weights, 0.0) if mask is not None)


def test_the_drawn_sparsity_depends_on_seed_and_update_alone():
    def drawn(updates: int) -> float:
        aware = SharpnessAware([], SharpnessConfig("cram", sparsities=(0.3, 0.5, 0.7)), seed=1)
        aware.updates += updates
        return aware.drawn()

    assert [drawn(n) for n in range(20)] == [drawn(n) for n in range(20)]
    assert {drawn(n) for n in range(20)} == {0.3, 0.5, 0.7}


def test_several_passes_of_one_update_are_disturbed_once():
    weight, _, aware, run = quadratic("sam", 0.5)
    first = aware(run)[1]
    assert torch.equal(aware(run)[1], first)
    aware.restore()
    assert int(aware.updates) == 1
    aware.restore()
    assert int(aware.updates) == 1, "nothing was disturbed"


@pytest.mark.parametrize(
    "options, named",
    [({"kind": "sham"}, "kind"), ({"rho": -1.0}, "rho"), ({"sparsities": ()}, "sparsities")],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ConfigError, match=f"sharpness: {named}"):
        SharpnessConfig(**options)
