"""Rounding by what layers hear: the step in closed form, smaller errors, what stays as it is."""

import pytest
import torch
from tiny_models import encoder, features
from torch import nn

from espnet_prune.surgery import load, save
from espnet_prune.surgery.few_bits import DAMPING, round_weights
from espnet_prune.surgery.rounding import FORMS, nearest, rounded_weights

HEARD = torch.Generator().manual_seed(1)


def passes_of(model: nn.Module, *heard: torch.Tensor):
    return [lambda x=x: model(x) for x in heard]


@pytest.fixture
def small_layers(monkeypatch):
    """Weights of any size are rounded."""
    monkeypatch.setattr("espnet_prune.surgery.few_bits.LEAST_NUMBERS", 1)


def test_a_column_makes_good_what_the_one_before_lost_and_the_bias_what_is_left(small_layers):
    layer = nn.Linear(2, 1)
    layer.weight.data = torch.tensor([[7.4, -2.0]])
    layer.bias.data = torch.tensor([1.0])
    heard = torch.tensor([[1.0, 3.0], [2.0, 5.0], [4.0, 4.0], [3.0, 0.0]])
    centred = heard - heard.mean(dim=0)
    products = centred.T @ centred / 4
    products += DAMPING * products.diagonal().mean() * torch.eye(2)
    round_weights(layer, 4, passes_of(layer, heard))
    scale = float(rounded_weights(layer)["weight"].scales)
    first = round(7.4 / scale) * scale
    second = -2.0 + (7.4 - first) * float(products[0, 1] / products[1, 1])
    expected = torch.tensor([[first, round(second / scale) * scale]])
    assert torch.allclose(layer.weight, expected)
    assert expected[0, 0] != 7.4 and abs(second + 2) > 1e-3
    lost = (torch.tensor([[7.4, -2.0]]) - expected) @ heard.mean(dim=0)
    assert torch.allclose(layer.bias, 1 + lost)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Linear(48, 32), (200, 48)),
        (nn.Linear(200, 16, bias=False), (400, 200)),
        (nn.Conv1d(24, 16, 3, padding=1), (1, 24, 200)),
        (nn.Conv1d(32, 64, 9, padding=4, groups=32), (1, 32, 300)),
        (nn.Conv2d(8, 16, 3, stride=2, bias=False), (1, 8, 31, 21)),
    ],
    ids=["linear", "two stretches and more", "over time", "by channel", "two dimensions"],
)
def test_outputs_are_nearer_than_with_the_nearest_numbers(layer, shape):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), layer)
    heard = [_like_speech(shape) for _ in range(4)]
    with torch.no_grad():
        wanted = [model(x) for x in heard]
        before = layer.weight.clone()
        round_weights(model, 4, passes_of(model, *heard))
        solved = sum((model(x) - y).square().sum() for x, y in zip(heard, wanted, strict=True))
        noted = rounded_weights(model)
        assert noted.keys() == {"1.weight"}
        assert noted["1.weight"].bits == (8 if getattr(layer, "groups", 1) > 1 else 4)
        layer.weight.copy_(nearest(before, FORMS[noted["1.weight"].bits])[0])
        plain = sum((model(x) - y).square().sum() for x, y in zip(heard, wanted, strict=True))
    assert solved < 0.7 * plain


def _like_speech(shape: tuple[int, ...]) -> torch.Tensor:
    """Inputs that are alike, about a mean that isn't 0, channels in the second place of four."""
    x = torch.randn(shape, generator=HEARD).cumsum(dim=-1) / 3
    return x + 0.5


def test_what_is_zero_stays_zero_and_what_no_pass_runs_is_rounded_to_the_nearest():
    torch.manual_seed(0)
    model = nn.ModuleDict({"run": nn.Linear(64, 64), "other": nn.Linear(64, 64)})
    gone = torch.rand(64, 64, generator=HEARD) < 0.4
    model["run"].weight.data[gone] = 0.0
    other = nearest(model["other"].weight, FORMS[4])[0]
    bias = model["other"].bias.clone()
    round_weights(model, 4, passes_of(model["run"], torch.randn(50, 64, generator=HEARD)))
    assert model["run"].weight[gone].eq(0).all()
    assert torch.equal(model["other"].weight, other) and torch.equal(model["other"].bias, bias)


@pytest.mark.parametrize("moved", [0.0, 1e-4])
def test_what_always_hears_nearly_the_same_says_what_it_said(moved):
    torch.manual_seed(0)
    layer, same = nn.Linear(256, 64), 100 * torch.randn(256)
    heard = same + moved * torch.randn(50, 256)
    with torch.no_grad():
        wanted = layer(same)
        round_weights(layer, 4, passes_of(layer, heard))
        assert torch.allclose(layer(same), wanted, atol=1e-3 * float(wanted.abs().max()))


def test_it_is_loaded_as_it_was_rounded_and_weights_trained_since_are_stored_as_they_are(tmp_path):
    model = encoder(output_size=64, linear_units=256)
    x, lengths = features()
    round_weights(model, 4, [lambda: model(x, lengths)])
    loaded = load(save(model, tmp_path / "rounded"))
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    noted = rounded_weights(loaded)
    assert noted.keys() == rounded_weights(model).keys()
    assert {each.bits for each in noted.values()} == {4}

    trained = loaded.encoders[0].feed_forward.w_1.weight
    trained.data += 1e-3
    again = load(save(loaded, tmp_path / "trained"))
    assert torch.equal(again.encoders[0].feed_forward.w_1.weight, trained)
    assert rounded_weights(again).keys() == noted.keys() - {"encoders.0.feed_forward.w_1.weight"}
