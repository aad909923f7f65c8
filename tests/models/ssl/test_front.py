"""Channels of wav2vec 2.0's and HuBERT's feature extractor: masked equals cut, exact sizes."""

import json

import pytest
import torch
from tiny_ssl import (
    ALL_KINDS,
    MODELS,
    batch,
    check,
    core_of,
    gated_with,
    logits,
    random_mask,
    ssl_model,
)

from espnet_prune.errors import ModelError
from espnet_prune.methods import make_method
from espnet_prune.models.huggingface.build import load_pretrained
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.refit import refit

FRONT = ("front_end_channel",)
VARIANTS = [
    *((name, {}) for name in MODELS),
    ("wav2vec2_stable", {"conv_bias": True}),
    ("hubert", {"feat_proj_layer_norm": False}),
]


def of_front(name, setter, **options):
    return gated_with(name, setter, FRONT, **options)


@pytest.mark.parametrize("name", MODELS)
def test_open_gates_change_nothing_bit_for_bit(name):
    gated = of_front(name, lambda site: torch.ones(site.units))
    assert torch.equal(logits(gated), logits(ssl_model(name)))
    assert gated.gate_names() == ["front_end.0", "front_end.1", "front_end.2"]
    released = gated.release()
    assert torch.equal(logits(released), logits(ssl_model(name)))
    kinds = [type(module).__name__ for module in released.modules()]
    assert kinds == [type(module).__name__ for module in ssl_model(name).modules()]


@pytest.mark.parametrize("name, options", VARIANTS)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_masked_equals_cut(name, options, soft):
    small = check(of_front(name, lambda site: random_mask(site, soft), **options))
    assert list(core_of(small).config.conv_dim) != [8, 6, 8]


@pytest.mark.parametrize("name", ["wav2vec2", "hubert_stable"])
def test_masked_equals_cut_with_all_other_sites(name, tmp_path):
    small = check(gated_with(name, lambda site: random_mask(site, True), ALL_KINDS))
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(logits(loaded), logits(small))
    assert plan_of(loaded) == plan_of(small)


@pytest.mark.parametrize("name, options", VARIANTS)
@pytest.mark.parametrize("gone", [(0,), (1,), (2,), (0, 1, 2)])
def test_masked_equals_cut_with_whole_layers_gone(name, options, gone, tmp_path):
    def setter(site):
        index = int(site.name[-1])
        return torch.zeros(site.units) if index in gone else random_mask(site, False)

    small = check(of_front(name, setter, **options))
    assert torch.equal(logits(load(save(small, tmp_path / "small"))), logits(small))


def test_a_cut_front_is_a_model_of_transformers_with_these_widths(tmp_path):
    small = cut(of_front("wav2vec2_stable", lambda site: random_mask(site, True)))
    small.save_pretrained(tmp_path / "stock")
    loaded = load_pretrained(str(tmp_path / "stock"), "Wav2Vec2ForCTC", offline=True)
    loaded.config._attn_implementation = "eager"
    assert torch.equal(logits(loaded), logits(small))
    assert list(loaded.config.conv_dim) == list(core_of(small).config.conv_dim)
    again = cut(inject(loaded, make_method("random", options={"sites": FRONT})))
    assert torch.equal(logits(load(save(again, tmp_path / "again"))), logits(again))


def test_closed_channels_are_no_part_of_the_layer_norms_statistics():
    """What is masked must not be heard: another value in a closed channel changes nothing."""
    gated = of_front("hubert_stable", lambda site: random_mask(site, False))
    before = logits(gated)
    with torch.no_grad():
        for index, layer in enumerate(core_of(gated.model).feature_extractor.conv_layers):
            closed = gated.gate(f"front_end.{index}")() == 0
            assert closed.any()
            layer.conv.weight[closed] += 5.0
    assert torch.equal(logits(gated), before)


@pytest.mark.parametrize("name", ["l0", "self_pinching", "uniform_magnitude"])
@pytest.mark.parametrize("model", ["wav2vec2", "hubert_stable"])
def test_methods_reach_their_target_on_the_front(name, model):
    measure = "parameters" if name == "self_pinching" else "macs"
    options = {"sites": FRONT, "budget": {"measure": measure, "tolerance": 0.1}}
    method = make_method(name, options, target=0.5, updates=4)
    gated = inject(ssl_model(model), method)
    if method.learns_masks:
        gated.train()
        (gated(**batch()).loss + method.loss(gated)).backward()
        gates = [p.grad for p in gated.gates.parameters()]
        assert any(grad is not None and grad.abs().sum() > 0 for grad in gates)
    masks = method.masks(gated.eval())
    assert float(gated.budget.sparsity(gated.budget.hard(masks))) == pytest.approx(0.5, abs=0.1)


def test_a_frozen_front_stays_frozen_after_the_cut():
    model = ssl_model("wav2vec2")
    core_of(model).feature_extractor._freeze_parameters()
    gated = inject(model, make_method("random", options={"sites": FRONT}))
    front = core_of(cut(gated)).feature_extractor
    assert not any(p.requires_grad for p in front.parameters())


def test_a_model_saved_before_these_sites_existed_is_loaded(tmp_path):
    small = cut(gated_with("wav2vec2", lambda site: random_mask(site, False)))
    folder = save(small, tmp_path / "old")
    text = json.loads((folder / "model.json").read_text())
    sites = text["config"]["plan"]["sites"]
    for name in [n for n in sites if sites[n]["kind"] in ("front_end_channel", "block")]:
        del sites[name]
    (folder / "model.json").write_text(json.dumps(text))
    assert torch.equal(logits(load(folder)), logits(small))


def test_refitting_brings_a_cut_front_nearer_to_the_teacher():
    """Its convolutions read several positions at a time."""
    gated, teacher = of_front("wav2vec2", lambda site: random_mask(site, False)), ssl_model()
    masks = gated.hard_masks()
    waves = torch.randn(8, 1, 4000, generator=torch.Generator().manual_seed(1))
    runs = [lambda model, wave=wave: model(wave) for wave in waves]

    @torch.no_grad()
    def lost() -> float:
        with holding(gated, masks):
            pairs = [(run(gated), run(teacher)) for run in runs]
        return sum(float((a.logits - b.logits).square().sum()) for a, b in pairs)

    before = lost()
    refit(gated, teacher.eval(), masks, runs)
    assert lost() < 0.9 * before


def test_another_norm_is_refused():
    model = ssl_model("wav2vec2")
    model.wav2vec2.feature_extractor.conv_layers[0].layer_norm = torch.nn.GroupNorm(2, 8)
    with pytest.raises(ModelError, match="front_end.0.*GroupNorm.*expected"):
        inject(model, make_method("random", options={"sites": FRONT}))
