"""Weights that no mask serves, in Conformers: float16 and tied; every method refuses them."""

import pytest
from tiny_models import AllSites, encoder

from espnet_prune.errors import ModelError
from espnet_prune.methods import make_method
from espnet_prune.surgery import inject, load, save

METHODS = ["l0_distill", "self_pinching", "self_pinching_weights", "magnitude"]
TIED = {  # site of units: (module of a block, of which layers one gets the other's weight)
    "attention.heads": ("self_attn", "linear_k", "linear_q"),
    "macaron.units": ("feed_forward_macaron", "w_1", None),
    "feed_forward.units": ("feed_forward", "w_2", None),
    "convolution.channels": ("conv_module", "depthwise_conv", None),
}


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_is_refused(method):
    with pytest.raises(ModelError, match="float16.*float32"):
        inject(encoder().half(), make_method(method))


@pytest.mark.parametrize("method", METHODS)
def test_a_tied_matrix_is_refused_by_name(method):
    model = encoder()
    attention = model.encoders[0].self_attn
    attention.linear_k.weight = attention.linear_q.weight
    with pytest.raises(ModelError, match="block.0.*tied to another.*linear_q.*linear_k.*untie"):
        inject(model, make_method(method))


@pytest.mark.parametrize("site", TIED)
def test_every_kind_of_layer_that_is_cut_is_looked_at(site):
    model = encoder()
    name, layer, other = TIED[site]
    first, second = (getattr(block, name) for block in model.encoders)
    source = getattr(second, layer) if other is None else getattr(first, other)
    getattr(first, layer).weight = source.weight
    with pytest.raises(ModelError, match=f"block.0.{site}: its matrix is tied"):
        inject(model, AllSites())


def test_a_tied_convolution_of_the_front_end_is_refused():
    model = encoder()
    model.second = model.embed.conv[2]  # the same module, by another name
    with pytest.raises(ModelError, match="front_end.0: its matrix is tied.*second.weight"):
        inject(model, AllSites())


def test_a_norm_that_is_shared_is_none_of_it():
    model = encoder()
    first, second = model.encoders
    first.norm_ff.weight = second.norm_ff.weight
    assert inject(model, AllSites()).hard_sparsity() == 0.0


def test_what_is_converted_afterwards_is_saved(tmp_path):
    """As the error's remedy says; it is loaded in float32."""
    half = encoder().half()
    loaded = load(save(half, tmp_path / "m")).state_dict()
    assert all((value == loaded[name]).all() for name, value in half.state_dict().items())
