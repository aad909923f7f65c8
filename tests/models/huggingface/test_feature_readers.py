"""Wav2Vec2-BERT and Parakeet: masked equals cut on random structures, sizes, saved, exported."""

import pytest
import tiny_models
import torch
from random_structures import random_structure
from tiny_feature_readers import MODELS, SECONDS, core_of, model_of
from torch.utils.flop_counter import FlopCounterMode

from espnet_prune.budget import Budget
from espnet_prune.errors import ModelError
from espnet_prune.export.onnx import export_onnx
from espnet_prune.methods import make_method
from espnet_prune.models.graphs import TOLERANCE
from espnet_prune.models.huggingface.build import load_pretrained
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.refit import refit


def batch(name: str) -> dict[str, torch.Tensor]:
    """Two recordings of noise, one shorter, with labels."""
    *_, rate, bins = MODELS[name]
    frames = round(SECONDS * rate)
    feats = torch.randn(2, frames, bins, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(2, frames, dtype=torch.long)
    mask[1, frames * 3 // 4 :] = 0
    labels = torch.tensor([[3, 4], [6, 7]])
    return {"input_features": feats, "attention_mask": mask, "labels": labels}


@torch.no_grad()
def logits(model, name: str) -> torch.Tensor:
    return model(**batch(name)).logits


class All(tiny_models.AllSites):
    reference_seconds = SECONDS


@torch.no_grad()
def check(gated, name: str, seed: int) -> torch.nn.Module:
    """Masked equals cut; parameters and MACs are exactly what the budget says."""
    masks = random_structure(gated, seed)
    for key, mask in masks.items():
        gated.gate(key).set(mask)
    small = cut(gated, masks)
    masked = logits(gated, name)
    difference = float((masked - logits(small, name)).abs().max())
    assert difference < 1e-5 * max(1.0, float(masked.abs().max()))
    kept = {}
    for measure in ("parameters", "macs"):
        budget = Budget(gated.site_map, gated.gate_names(), measure)
        kept[measure] = budget.total - budget.prunable + budget.hard(masks)
    core, (*_, rate, bins) = core_of(small), MODELS[name]
    assert sum(p.numel() for p in core.parameters()) == kept["parameters"]
    with FlopCounterMode(display=False) as counter:
        core(torch.zeros(1, round(SECONDS * rate), bins))
    assert counter.get_total_flops() // 2 == kept["macs"]
    return small


@pytest.mark.parametrize("name", MODELS)
def test_open_gates_change_nothing_and_random_structures_are_what_they_say(name, tmp_path):
    stock = logits(model_of(name), name)
    gated = inject(model_of(name), All(learned=False)).eval()
    assert torch.equal(logits(gated, name), stock)
    for seed in range(20):
        small = check(gated, name, seed)
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(logits(loaded, name), logits(small, name))
    assert plan_of(loaded) == plan_of(small)
    assert torch.equal(logits(gated.release(), name), stock)


@pytest.mark.parametrize("name", ["bert", "parakeet"])
def test_a_folder_of_save_pretrained_is_loaded(name, tmp_path):
    model = model_of(name)
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path), MODELS[name][0], offline=True)
    assert torch.allclose(logits(loaded, name), logits(model, name), atol=1e-5)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["bert", "parakeet"])
def test_a_graph_gives_what_the_cut_model_does(name, tmp_path):
    method = make_method("uniform_magnitude", target=0.5)
    gated = inject(model_of(name), method).eval()
    differences = export_onnx(cut(gated, method.masks(gated)), tmp_path / "onnx")
    assert len(differences) == 3 and max(differences.values()) < TOLERANCE


@pytest.mark.parametrize("name", ["bert", "parakeet"])
def test_the_loss_is_felt_by_every_mask(name):
    gated = inject(model_of(name), All(learned=False)).train()
    masks = {key: mask.clone().requires_grad_() for key, mask in gated.masks().items()}
    gated.masks = lambda: masks
    gated(**batch(name)).loss.backward()
    assert {key for key, mask in masks.items() if mask.grad.abs().sum() > 0} == set(masks)


@pytest.mark.parametrize("name", ["bert", "parakeet"])
def test_refitting_brings_the_cut_model_nearer_to_the_teacher(name):
    chosen = make_method("uniform_magnitude", {"sites": ["feed_forward_unit"]}, target=0.5)
    gated = inject(model_of(name), chosen).eval()
    shares = [site.share for site in gated.site_map.of_kinds(("feed_forward_unit",))]
    assert shares == [0.5] * 4  # of two feed-forwards in each of two blocks
    masks, teacher = chosen.masks(gated), model_of(name)
    teacher_s = logits(teacher, name)
    before = (logits(cut(gated, masks), name) - teacher_s).square().mean()
    refit(gated, teacher, masks, [lambda model: model(**batch(name))], choose=False)
    after = (logits(cut(gated, masks), name) - teacher_s).square().mean()
    assert after < 0.5 * before


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("bert", {"add_adapter": True}, "add_adapter: true can't be pruned"),
        ("parakeet", {"num_key_value_heads": 2}, "num_key_value_heads: heads that share"),
    ],
)
def test_what_is_not_known_is_refused_by_name(name, options, message):
    with pytest.raises(ModelError, match=message):
        inject(model_of(name, **options), All(learned=False))
