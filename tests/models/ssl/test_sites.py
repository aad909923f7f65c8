"""wav2vec 2.0 and HuBERT of transformers, tiny and random: invariants, training, save and load."""

import json
import logging
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_ssl import (
    KINDS,
    MODELS,
    SIZES,
    Ssl,
    batch,
    check,
    core_of,
    gated_with,
    logits,
    random_mask,
    ssl_model,
)

from espnet_prune.errors import EnvironmentProblem, ModelError
from espnet_prune.methods import make_method, options_of
from espnet_prune.models.huggingface.build import from_config, load_pretrained
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.sparse import count_zeroed

METHODS = ["l0_distill", "self_pinching", "self_pinching_weights", "magnitude"]


@pytest.mark.parametrize("name", MODELS)
def test_open_gates_change_nothing_bit_for_bit(name):
    gated = gated_with(name, lambda site: torch.ones(site.units))
    assert torch.equal(logits(gated), logits(ssl_model(name)))
    assert set(gated.model.state_dict()) == set(ssl_model(name).state_dict())
    assert torch.equal(logits(gated.release()), logits(ssl_model(name)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_masked_equals_cut(name, soft):
    check(gated_with(name, lambda site: random_mask(site, soft)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "group", ["attention", "feed_forward", "attention.heads", "feed_forward.units"]
)
def test_masked_equals_cut_with_a_whole_group_gone(name, group):
    def setter(site):
        gone = site.name == f"block.0.{group}"
        return torch.zeros(site.units) if gone else torch.ones(site.units)

    check(gated_with(name, setter))


@pytest.mark.parametrize("name", MODELS)
def test_everything_gone_still_runs_and_is_saved(name, tmp_path):
    small = check(gated_with(name, lambda site: torch.zeros(site.units)))
    assert torch.equal(logits(load(save(small, tmp_path / "m"))), logits(small))


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_strictly_gives_equal_outputs(name, tmp_path):
    small = check(gated_with(name, lambda site: random_mask(site, True)))
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(logits(loaded), logits(small))
    assert plan_of(loaded) == plan_of(small)
    dense = ssl_model(name)
    assert torch.equal(logits(load(save(dense, tmp_path / "dense"))), logits(dense))


@pytest.mark.parametrize("name", ["self_pinching", "self_pinching_weights", "l0", "magnitude"])
@pytest.mark.parametrize("model", ["wav2vec2", "hubert_stable"])
def test_one_pass_with_the_model_s_own_ctc_loss(name, model, tmp_path):
    options = {
        "sites": KINDS,
        "budget": {"reference_seconds": 0.5, "tolerance": 0.02},
        "pinching": {"learning_rate": 0.02, "gate": {"score_scaling": "mean"}},
    }
    method = make_method(name, options_of(name, options), target=0.5, updates=20)
    gated = inject(ssl_model(model), method)
    if method.learns_masks:
        gated.train()
        weights = torch.optim.AdamW(gated.model.parameters(), lr=1e-3)
        gates = torch.optim.Adam(method.parameter_groups(gated))
        losses = []
        for _ in range(20):
            task = gated(**batch()).loss
            (task + method.loss(gated)).backward()
            losses.append(float(task.detach()))
            for optimizer in (weights, gates):
                optimizer.step()
                optimizer.zero_grad()
            gated.after_update()
        assert losses[-1] < losses[0]
    masks = method.masks(gated.eval())
    assert float(gated.budget.sparsity(gated.budget.hard(masks))) == pytest.approx(0.5, abs=0.02)
    small = cut(gated, masks)
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(logits(loaded), logits(small))
    removed = sum(p.numel() for p in gated.model.parameters()) - sum(
        p.numel() for p in small.parameters()
    )
    assert removed + count_zeroed(small) == gated.budget.prunable - gated.budget.hard(masks)


def test_the_weights_counted_are_those_of_attention_and_feed_forward():
    """The paper's denominator."""
    gated = inject(ssl_model(), make_method("self_pinching_weights"))
    assert gated.budget.prunable == 2 * (4 * 16 * 16 + 2 * 16 * 24)


def test_another_architecture_is_refused_by_name():
    import transformers

    sizes = {k: v for k, v in SIZES.items() if k != "attn_implementation"}
    model = transformers.UniSpeechForCTC(transformers.UniSpeechConfig(**sizes))
    with pytest.raises(ModelError, match="UniSpeechForCTC: can.t be pruned"):
        inject(model, Ssl(KINDS))


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_is_refused(method):
    with pytest.raises(ModelError, match="float16.*float32"):
        inject(ssl_model().half(), make_method(method))


@pytest.mark.parametrize("method", METHODS)
def test_a_matrix_that_is_tied_to_another_is_refused(method):
    model = ssl_model()
    first, second = core_of(model).encoder.layers
    second.feed_forward.output_dense.weight = first.feed_forward.output_dense.weight
    with pytest.raises(ModelError, match="block.0.feed_forward.*tied.*output_dense.*untie"):
        inject(model, make_method(method))


@pytest.mark.parametrize("method", ["l0_distill", "self_pinching", "magnitude"])
def test_a_tied_convolution_is_refused(method):
    model = ssl_model(conv_dim=[8, 8, 8], conv_kernel=[10, 3, 3])
    layers = core_of(model).feature_extractor.conv_layers
    layers[2].conv.weight = layers[1].conv.weight
    with pytest.raises(ModelError, match="front_end.0: its matrix is tied.*untie"):
        inject(model, make_method(method))


def test_a_cut_model_is_not_gated_again():
    small = cut(gated_with("wav2vec2", lambda site: random_mask(site, False)))
    with pytest.raises(ModelError, match="already cut"):
        inject(small, Ssl(KINDS))


def test_a_description_can_name_no_other_class(tmp_path):
    folder = save(ssl_model(), tmp_path / "m")
    text = json.loads((folder / "model.json").read_text())
    text["config"]["class"] = "Wav2Vec2ForCtc"
    (folder / "model.json").write_text(json.dumps(text))
    with pytest.raises(ModelError, match="did you mean 'Wav2Vec2ForCTC'"):
        load(folder)


def test_a_folder_of_save_pretrained_is_loaded(tmp_path):
    model = ssl_model()
    model.save_pretrained(tmp_path / "local")
    loaded = load_pretrained(str(tmp_path / "local"), "Wav2Vec2ForCTC", offline=True)
    loaded.config._attn_implementation = "eager"
    assert torch.equal(logits(loaded), logits(model))


def test_a_missing_model_says_what_to_do():
    with pytest.raises(ModelError, match="nobody/nothing: can't be loaded.*folder.*internet"):
        load_pretrained("nobody/nothing", "HubertForCTC", offline=True)


def test_weights_of_another_model_are_refused(tmp_path):
    ssl_model("hubert").save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="other: (weights are missing|can't be loaded).*"):
        load_pretrained(str(tmp_path / "other"), "Wav2Vec2ForCTC", offline=True)


def without(folder, key: str):
    """The folder, a weight taken out of it."""
    state = load_file(folder / "model.safetensors")
    state.pop(key)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_an_embedding_of_hidden_frames_may_be_missing(tmp_path, caplog):
    """facebook/wav2vec2-base-960h has none, but its configuration asks for one."""
    model = ssl_model(mask_time_prob=0.05)
    model.save_pretrained(tmp_path / "local")
    folder = without(tmp_path / "local", "wav2vec2.masked_spec_embed")
    with caplog.at_level(logging.INFO):
        loaded = load_pretrained(str(folder), "Wav2Vec2ForCTC", offline=True)
    said = [r for r in caplog.records if r.name == "espnet_prune.models.huggingface.build"]
    assert [r.levelname for r in said] == ["INFO"]
    assert "masked_spec_embed; it starts at random" in said[0].getMessage()
    embedding = core_of(loaded).masked_spec_embed
    assert ((embedding >= 0) & (embedding < 1)).all() and embedding.std() > 0
    loaded.config._attn_implementation = "eager"
    assert torch.equal(logits(loaded), logits(model))
    without(folder, "wav2vec2.encoder.layers.0.attention.k_proj.weight")
    with pytest.raises(ModelError, match=r"missing: wav2vec2.encoder.layers.0.\S*k_proj.weight$"):
        load_pretrained(str(folder), "Wav2Vec2ForCTC", offline=True)


def truncate(folder) -> None:
    stored = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(stored[: len(stored) // 2])


def set_config(folder, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (truncate, "incomplete"),
        (lambda f: set_config(f, intermediate_size=20), "other sizes than its config.json"),
        (lambda f: set_config(f, hidden_act="gelue"), "config.json names 'gelue'"),
    ],
)
def test_a_damaged_folder_is_named_with_the_remedy(tmp_path, damage, reason):
    ssl_model().save_pretrained(tmp_path / "local")
    damage(tmp_path / "local")
    with pytest.raises(ModelError, match=f"local: can't be loaded.*{reason}.*whole and unchanged"):
        load_pretrained(str(tmp_path / "local"), "Wav2Vec2ForCTC", offline=True)


def test_an_unknown_activation_is_named():
    with pytest.raises(ModelError, match="Wav2Vec2ForCTC.*'gelue' isn't known.*gelu"):
        from_config("Wav2Vec2ForCTC", {**SIZES, "hidden_act": "gelue"})


def test_without_transformers_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EnvironmentProblem, match=r"espnet_prune\[hf\]"):
        load_pretrained("nobody/nothing", "HubertForCTC", offline=True)
