"""Cuts of a model whose single weights were zeroed before."""

import pytest
import torch
from tiny_models import AllSites, encoder, features

from espnet_prune.methods import make_method
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.sparse import count_zeroed, sparse_names

MATRICES = 2 * (5 + 2 + 2)


@pytest.mark.parametrize(
    ("gone", "left"),
    [("block.0.attention", MATRICES - 5), ("block.0", MATRICES // 2), ("front_end.0", MATRICES)],
)
def test_zeroed_weights_that_are_left_are_stored_sparse_after_a_cut_of_units(gone, left, tmp_path):
    method = make_method("uniform_magnitude_weights", target=0.5, updates=4)
    gated = inject(encoder(), method).eval()
    zeroed = load(save(cut(gated, method.masks(gated)), tmp_path / "zeroed"))
    gated = inject(zeroed, AllSites(learned=False)).eval()
    for name in gated.gate_names():
        units = gated.site_map.sites[name].units
        gated.gate(name).set(torch.zeros(units) if name == gone else torch.ones(units))
    small = cut(gated)
    loaded = load(save(small, tmp_path / "small"))
    with torch.no_grad():
        assert torch.equal(loaded(*features())[0], small(*features())[0])
    assert len(sparse_names(small)) == len(sparse_names(loaded)) == left
    assert 0 < count_zeroed(small) == count_zeroed(loaded)
    assert len(sparse_names(zeroed)) == MATRICES


def test_a_plan_tells_the_blocks_that_still_attend():
    gated = inject(encoder(), AllSites(learned=False)).eval()
    for name in gated.gate_names():
        gate = gated.gate(name)
        gate.set(torch.zeros(gate.units) if name == "block.0.attention" else torch.ones(gate.units))
    assert plan_of(cut(gated)).attending_blocks() == [1]
    heads_alone = inject(encoder(), AllSites(("head",), learned=False)).eval()
    assert plan_of(cut(heads_alone, heads_alone.hard_masks())).attending_blocks() == [0, 1]


def test_only_gates_that_learn_nothing_and_were_given_nothing_are_warned_of(caplog):
    cut(inject(encoder(), AllSites(learned=True)).eval())
    gated = inject(encoder(), AllSites(learned=False)).eval()
    masks = gated.hard_masks()
    cut(gated, masks)
    gated.gate("front_end.0").set((torch.arange(len(masks["front_end.0"])) > 0).float())
    cut(gated)
    assert "nothing is cut" not in caplog.text
    gated.gate("front_end.0").set(masks["front_end.0"])
    cut(gated)
    assert "nothing is cut" in caplog.text
