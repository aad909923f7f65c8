"""The options that are read off a ConformerEncoder, which build another one like it."""

import pytest
import torch
from tiny_models import ENCODER, AllSites, encoder

from espnet_prune.errors import ModelError
from espnet_prune.models.conformer.family import FAMILY
from espnet_prune.surgery import cut, inject, load, save

RATES = {
    "dropout_rate": 0.25,
    "positional_dropout_rate": 0.15,
    "attention_dropout_rate": 0.05,
    "stochastic_depth_rate": [0.1, 0.2],
    "layer_drop_rate": 0.3,
}


def narrow(**attributes):
    """An encoder of features of 40 values, which 39 to 42 fit."""
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder

    made = ConformerEncoder(40, **ENCODER).eval()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def rates(model) -> list:
    modules = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    depths = [block.stochastic_depth_rate for block in model.encoders]
    return [[module.p for module in modules], depths, model.encoders.layer_drop_rate]


def test_rates_of_training_are_saved_and_loaded(tmp_path):
    model = encoder(**RATES)
    loaded = load(save(model, tmp_path / "dense"))
    assert rates(loaded) == rates(model)
    small = cut(inject(model, AllSites(learned=False)))
    assert rates(load(save(small, tmp_path / "small"))) == rates(model)


def test_the_width_of_features_is_the_encoder_s_own_where_it_says_it():
    assert FAMILY.describe(narrow(input_size=40))["input_size"] == 40
    assert FAMILY.describe(encoder())["input_size"] == 80
    with pytest.raises(ModelError, match=r"input_size: 43 doesn't fit.*\[39, 40, 41, 42\]"):
        FAMILY.describe(narrow(input_size=43))


@torch.no_grad()
def test_an_encoder_whose_width_is_not_known_is_saved_cut_and_loaded(tmp_path):
    model = narrow()
    loaded = load(save(model, tmp_path / "dense"))
    small = load(save(cut(inject(loaded, AllSites(learned=False)).eval()), tmp_path / "small"))
    assert FAMILY.describe(small)["input_size"] == [39, 40, 41, 42]
    feats, lengths = torch.randn(1, 50, 40), torch.tensor([50])
    assert torch.equal(small(feats, lengths)[0], model(feats, lengths)[0])
    small.input_size = 40
    again = load(save(small, tmp_path / "known"))
    assert FAMILY.describe(again)["input_size"] == 40
