"""WavLM and its like: masked equals cut on random structures, sizes, saved, trained, read."""

import pytest
import torch
from tiny_ssl import (
    EVERY_KIND,
    Ssl,
    batch,
    check_structure,
    core_of,
    gated_with,
    logits,
    ssl_model,
)

from espnet_prune.errors import ModelError
from espnet_prune.export.onnx import export_onnx
from espnet_prune.models.graphs import TOLERANCE
from espnet_prune.surgery import cut, inject, load, plan_of, save

NAMES = ["wavlm", "wavlm_stable", "conformer", "conformer_rotary"]


def opened(name):
    return gated_with(name, lambda site: torch.ones(site.units), EVERY_KIND)


@pytest.mark.parametrize("name", NAMES)
def test_open_gates_change_nothing_and_random_structures_are_what_they_say(name, tmp_path):
    gated, stock = opened(name), logits(ssl_model(name))
    assert torch.equal(logits(gated), stock)
    for seed in range(20):
        small = check_structure(gated, seed)
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(logits(loaded), logits(small)) and plan_of(loaded) == plan_of(small)
    released = gated.release()
    assert torch.equal(logits(released), stock)
    kinds = [type(module).__name__ for module in released.modules()]
    assert kinds == [type(module).__name__ for module in ssl_model(name).modules()]


@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_are_those_of_masked_blocks(name):
    gated = opened(name)
    core_of(gated.model)(batch()["input_values"], output_hidden_states=True)
    gated.gate("block.1").set(torch.zeros(1))
    with torch.no_grad():
        before, after = gated.model(**batch(), output_hidden_states=True).hidden_states[-2:]
    assert torch.equal(before, after)


@pytest.mark.parametrize("kind", ["weight", "rank"])
@pytest.mark.parametrize("name", NAMES)
def test_matrices_are_gated_where_they_are_called(kind, name, tmp_path):
    gated = inject(ssl_model(name), Ssl((kind,), learned=False)).eval()
    dense = logits(ssl_model(name))
    assert torch.allclose(logits(gated), dense, atol=1e-5)
    for matrix, site in gated.site_map.sites.items():
        gated.gate(matrix).set((torch.arange(site.units) % 3 > 0).float())
        masked = logits(gated)
        assert not torch.equal(masked, dense), matrix
    small = cut(gated)
    assert torch.allclose(masked, logits(small), atol=1e-5)
    assert torch.equal(logits(load(save(small, tmp_path / "m"))), logits(small))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_felt_by_every_mask(name):
    gated = opened(name).train()
    ones = gated.masks()
    masks = {key: mask.clone().requires_grad_() for key, mask in ones.items()}
    gated.masks = lambda: masks
    gated(**batch()).loss.backward()
    assert {key for key, mask in masks.items() if mask.grad.abs().sum() > 0} == set(masks)


@pytest.mark.timeout(300)
def test_a_graph_of_transformers_own_input_gives_what_the_model_does(tmp_path):
    differences = export_onnx(ssl_model("wavlm"), tmp_path / "onnx")
    assert len(differences) == 3 and max(differences.values()) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_model_is_not_gated_again(name):
    gated = opened(name)
    small = check_structure(gated, 1)
    with pytest.raises(ModelError, match="already cut"):
        inject(small, Ssl())
