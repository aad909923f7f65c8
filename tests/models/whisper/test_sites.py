"""Whisper of transformers, tiny and random: invariants, generate, training, save and load."""

import copy
import json

import pytest
import tiny_models
import torch
from tiny_whisper import (
    SECONDS,
    Whisper,
    assert_the_cache_gives_the_whole_sequence,
    batch,
    check,
    logits,
    tokens,
    whisper,
)

from espnet_prune.errors import ModelError
from espnet_prune.methods import make_method, options_of
from espnet_prune.models.huggingface.build import load_pretrained
from espnet_prune.surgery import cut, inject, load, plan_of, save, sites_of
from espnet_prune.surgery.sparse import count_zeroed

KINDS = ("head", "feed_forward_unit", "branch")
METHODS = ["l0_distill", "self_pinching", "self_pinching_weights", "magnitude"]
GROUPS = [
    "encoder.block.0.attention",
    "encoder.block.1.feed_forward",
    "decoder.block.0.attention",
    "decoder.block.0.cross_attention",
    "decoder.block.1.attention",
    "decoder.block.1.feed_forward",
]


def gated_with(setter, **options):
    gated = inject(whisper(**options), Whisper(KINDS, learned=False)).eval()
    for site in gated.gate_names():
        gated.gate(site).set(setter(gated.site_map.sites[site]))
    return gated


def random_mask(site, soft: bool):
    return tiny_models.random_mask(site, soft, branch=0.7, first_stays=True)


def without(*groups: str):
    """All gates open but those of whole branches, or of all units of a branch."""
    return lambda site: torch.full((site.units,), 0.0 if site.name in groups else 1.0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_open_gates_change_nothing_bit_for_bit(attention):
    gated = gated_with(without(), attention=attention)
    stock = whisper(attention=attention)
    assert torch.equal(logits(gated), logits(stock))
    assert set(gated.model.state_dict()) == set(stock.state_dict())
    assert tokens(gated.model) == tokens(stock)
    assert torch.equal(logits(gated.release()), logits(stock))


def test_transcripts_are_varied_enough_to_be_compared():
    first, second = tokens(whisper())
    assert len(set(first)) > 3
    assert first != second


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_masked_equals_cut(soft):
    check(gated_with(lambda site: random_mask(site, soft)))


@pytest.mark.parametrize("group", GROUPS)
def test_masked_equals_cut_with_a_whole_branch_gone(group):
    check(gated_with(without(group)))


@pytest.mark.parametrize("group", GROUPS)
def test_masked_equals_cut_with_all_units_of_a_branch_gone(group):
    small = check(gated_with(without(f"{group}.heads", f"{group}.units")))
    assert plan_of(small).sites[group].kept == ()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "options",
    [{"use_cache": False}, {"num_beams": 3}, {"cache_implementation": "static"}],
    ids=["no cache", "beams", "static cache"],
)
@pytest.mark.parametrize("group", [None, "decoder.block.0.attention", "everything"])
def test_generate_with_every_kind_of_cache(group, options, attention):
    """Positions are counted by the first layer's cache, which must be there without its heads."""
    setter = without(group)
    if group == "everything":
        setter = lambda site: torch.zeros(site.units)  # noqa: E731
    elif group is None:
        setter = lambda site: random_mask(site, True)  # noqa: E731
    gated = gated_with(setter, attention=attention)
    small = cut(gated)
    assert tokens(gated.model, **options) == tokens(small, **options)
    if "num_beams" not in options:
        assert tokens(small, **options) == tokens(small)


def test_the_cache_gives_the_logits_of_the_whole_sequence_without_the_first_attention():
    assert_the_cache_gives_the_whole_sequence(cut(gated_with(without("decoder.block.0.attention"))))


def test_everything_gone_still_runs_and_is_saved(tmp_path):
    small = check(gated_with(lambda site: torch.zeros(site.units)))
    loaded = load(save(small, tmp_path / "m"))
    assert torch.equal(logits(loaded), logits(small))
    assert tokens(loaded) == tokens(small)


def test_saved_and_loaded_strictly_gives_equal_outputs(tmp_path):
    small = check(gated_with(lambda site: random_mask(site, True)))
    small.generation_config.suppress_tokens = [5, 6]
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(logits(loaded), logits(small))
    assert plan_of(loaded) == plan_of(small)
    assert tokens(loaded) == tokens(small)
    assert not {5, 6}.intersection(sum(tokens(loaded), []))
    assert loaded.proj_out.weight is loaded.model.decoder.embed_tokens.weight
    dense = whisper()
    assert torch.equal(logits(load(save(dense, tmp_path / "dense"))), logits(dense))


def test_a_model_that_was_loaded_is_trained_and_saved_again(tmp_path):
    """Its output layer is still the embeddings' matrix."""
    loaded = load(save(cut(gated_with(without())), tmp_path / "m"))
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(**batch()).loss.backward()
    optimizer.step()
    again = load(save(loaded, tmp_path / "again"))
    assert torch.equal(logits(again), logits(loaded))


@pytest.mark.parametrize("kind", ["parameters", "macs"])
def test_expected_size_is_the_hard_size_once_gates_saturate(kind):
    gated = inject(whisper(), Whisper(KINDS, measure=kind)).eval()
    for name in gated.gate_names():
        site = gated.site_map.sites[name]
        mask = random_mask(site, False)
        gated.gate(name).log_alpha.data.copy_((2 * mask - 1) * 200.0)
    expected = float(gated.expected_sparsity())
    assert expected == pytest.approx(gated.hard_sparsity(), abs=1e-9)
    assert 0.1 < expected < 0.9


def test_masks_are_drawn_once_for_encoder_and_decoder():
    """One training forward, one draw; the encoder inside is part of it."""
    gated = inject(whisper(), Whisper(KINDS)).train()
    drawn = []
    original = gated.masks
    gated.masks = lambda: drawn.append(1) or original()
    gated(**batch())
    assert len(drawn) == 1
    gated.eval().model.model.encoder(batch()["input_features"])
    assert len(drawn) == 2


def test_a_forward_that_failed_leaves_no_mask_behind():
    gated = gated_with(lambda site: random_mask(site, False))
    before = logits(gated)
    with pytest.raises(ValueError, match="mel input features"):
        gated(input_features=torch.zeros(1, 8, 4), labels=torch.tensor([[3]]))
    assert torch.equal(logits(gated), before)
    assert torch.equal(logits(gated.release()), logits(whisper()))


def test_gradient_checkpointing_would_lose_the_masks_and_is_refused():
    gated = inject(whisper(), Whisper(KINDS)).train()
    gated.model.gradient_checkpointing_enable()
    with pytest.raises(ModelError, match="gradient_checkpointing_disable"):
        gated(**batch())
    gated.model.gradient_checkpointing_disable()
    gated(**batch()).loss.backward()


@pytest.mark.parametrize("name", ["self_pinching", "self_pinching_weights", "l0", "magnitude"])
def test_one_pass_with_the_model_s_own_loss(name, tmp_path):
    options = {
        "sites": KINDS,
        "budget": {"reference_seconds": SECONDS, "tolerance": 0.01},
        "pinching": {"learning_rate": 0.02, "gate": {"score_scaling": "mean"}},
    }
    method = make_method(name, options_of(name, options), target=0.5, updates=20)
    gated = inject(whisper(), method)
    if method.learns_masks:
        gated.train()
        weights = torch.optim.AdamW(gated.model.parameters(), lr=3e-3)
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
    assert float(gated.budget.sparsity(gated.budget.hard(masks))) == pytest.approx(0.5, abs=0.01)
    small = cut(gated, masks)
    loaded = load(save(small, tmp_path / "small"))
    assert tokens(loaded) == tokens(small)
    assert torch.equal(logits(loaded), logits(small))
    removed = sum(p.numel() for p in gated.model.parameters()) - sum(
        p.numel() for p in small.parameters()
    )
    assert removed + count_zeroed(small) == gated.budget.prunable - gated.budget.hard(masks)


def test_the_weights_counted_are_those_of_attention_and_feed_forward():
    """The paper's denominator, encoder and decoder; the embeddings, tied, are not among them."""
    gated = inject(whisper(), make_method("self_pinching_weights"))
    encoder = 4 * 16 * 16 + 2 * 16 * 24
    decoder = 8 * 16 * 16 + 2 * 16 * 20
    assert gated.budget.prunable == 2 * (encoder + decoder)
    assert gated.budget.total == sum(p.numel() for p in gated.model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_matrix_that_is_tied_to_another_is_refused(method):
    model = whisper()
    layers = model.model.encoder.layers
    layers[1].fc1.weight = layers[0].fc1.weight
    with pytest.raises(ModelError, match="encoder.block.0.feed_forward.*tied.*fc1.*untie"):
        inject(model, make_method(method))


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_is_refused(method):
    with pytest.raises(ModelError, match="float16.*float32"):
        inject(whisper().half(), make_method(method))


def test_a_cut_model_is_not_gated_again():
    for setter in (lambda s: random_mask(s, False), without("decoder.block.1.cross_attention")):
        with pytest.raises(ModelError, match="already cut"):
            inject(cut(gated_with(setter)), Whisper(KINDS))


def test_heads_that_align_words_are_forgotten_when_they_are_cut():
    """Their indices would be of other heads."""
    gated = gated_with(without("decoder.block.1.cross_attention"))
    gated.model.generation_config.alignment_heads = [[0, 1]]
    assert cut(gated).generation_config.alignment_heads is None
    assert gated.model.generation_config.alignment_heads == [[0, 1]]
    whole = gated_with(without("encoder.block.0.attention"))
    whole.model.generation_config.alignment_heads = [[0, 1]]
    assert cut(whole).generation_config.alignment_heads == [[0, 1]]


def test_a_longer_utterance_takes_more_windows():
    short, long = sites_of(whisper(), SECONDS), sites_of(whisper(), 3 * SECONDS)
    for one, three in zip(short.terms, long.terms, strict=True):
        assert (three.parameters, three.macs) == (one.parameters, 3 * one.macs)


def test_a_folder_of_save_pretrained_is_loaded(tmp_path):
    model = whisper()
    model.save_pretrained(tmp_path / "local")
    name = "WhisperForConditionalGeneration"
    loaded = load_pretrained(str(tmp_path / "local"), name, offline=True)
    loaded.config._attn_implementation = "eager"
    assert torch.equal(logits(loaded), logits(model))


def test_weights_without_their_tied_source_are_refused(tmp_path):
    folder = save(whisper(), tmp_path / "m")
    text = json.loads((folder / "model.json").read_text())
    assert text["tied"] == {"proj_out.weight": "model.decoder.embed_tokens.weight"}
    text["tied"] = {"proj_out.weight": "model.nothing"}
    (folder / "model.json").write_text(json.dumps(text))
    with pytest.raises(ModelError, match="missing: proj_out.weight"):
        load(folder)


def test_gates_survive_a_copy():
    gated = gated_with(lambda site: random_mask(site, True))
    twin = copy.deepcopy(gated)
    assert torch.equal(logits(twin), logits(gated))
    assert tokens(twin.model) == tokens(gated.model)
