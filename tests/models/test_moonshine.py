"""Moonshine of transformers, tiny and random: masked equals cut, generate, save, load, export."""

import pytest
import tiny_models
import torch
from random_structures import random_structure
from tiny_whisper import decoding_macs

from espnet_prune.budget import Budget, resolve
from espnet_prune.errors import ModelError
from espnet_prune.export.onnx import export_onnx
from espnet_prune.export.transformers_folder import export_transformers
from espnet_prune.methods import make_method
from espnet_prune.models.graphs import TOLERANCE
from espnet_prune.models.huggingface.build import from_config, load_pretrained
from espnet_prune.models.whisper.sites import TOKENS_PER_SECOND
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.families import family_of
from espnet_prune.surgery.refit import refit

NAME = "MoonshineForConditionalGeneration"
SECONDS = 1.0
NUMBER = round(TOKENS_PER_SECOND * SECONDS)
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "encoder_num_hidden_layers": 2,
    "decoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 4,
    "decoder_num_attention_heads": 4,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}
GROUPS = [
    "encoder.block.1.feed_forward",
    "decoder.block.0.attention",
    "decoder.block.1.cross_attention",
    "decoder.block.0",
]
PADDED = {"pad_head_dim_to_multiple_of": 8, "attention_bias": True}


def moonshine(**options):
    """A tiny model whose transcripts vary and whose heads, positions and units are felt."""
    torch.manual_seed(0)
    model = tiny_models.randomise(from_config(NAME, {**SIZES, **options})).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, 0.0, 0.3)
        elif name.endswith("norm.weight"):
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    return model


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    samples = torch.randn(2, int(SECONDS * 16000), generator=generator)
    mask = torch.ones_like(samples, dtype=torch.long)
    mask[1, 12000:] = 0
    tokens = torch.tensor([[1, 7, 9, 4], [1, 8, 3, 3]])
    return {"input_values": samples, "attention_mask": mask, "decoder_input_ids": tokens}


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(**batch()).logits


def tokens(model, **options) -> list[list[int]]:
    length = {"max_length": 10, "min_length": 10}
    return model.generate(batch()["input_values"], **length, **options).tolist()


class Whole(tiny_models.AllSites):
    reference_seconds = SECONDS


def gate(**options):
    return inject(moonshine(**options), Whole(learned=False)).eval()


def check(gated, masks) -> torch.nn.Module:
    """Masked equals cut; parameters and MACs are exactly what the budget says."""
    for name, mask in masks.items():
        gated.gate(name).set(mask)
    small = cut(gated, masks)
    masked = logits(gated)
    difference = float((masked - logits(small)).abs().max())
    assert difference < 1e-5 * max(1.0, float(masked.abs().max()))
    kept = {}
    for measure in ("parameters", "macs"):
        budget = Budget(gated.site_map, gated.gate_names(), measure)
        kept[measure] = budget.total - budget.prunable + budget.hard(masks)
    assert sum(p.numel() for p in small.parameters()) == kept["parameters"]
    assert decoding_macs(small, batch()["input_values"][:1], NUMBER) == kept["macs"]
    return small


@pytest.mark.parametrize("options", [{}, PADDED], ids=["plain", "padded"])
def test_open_gates_change_nothing_and_random_structures_are_what_they_say(options, tmp_path):
    stock = logits(moonshine(**options))
    gated = gate(**options)
    assert torch.equal(logits(gated), stock)
    for seed in range(20):
        small = check(gated, random_structure(gated, seed))
    assert tokens(gated.model) == tokens(small)
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(logits(loaded), logits(small)) and plan_of(loaded) == plan_of(small)
    assert torch.equal(logits(gated.release()), stock)


@pytest.mark.parametrize(
    "options", [{"use_cache": False}, {"num_beams": 3}], ids=["plain", "beams"]
)
@pytest.mark.parametrize("group", GROUPS)
def test_generate_without_a_branch_or_block(group, options):
    gated = gate()
    small = check(gated, resolve(gated.site_map, {group: torch.zeros(1)}))
    first, second = tokens(moonshine())
    assert first != second and len(set(first)) > 3
    assert tokens(gated.model, **options) == tokens(small, **options)
    if "num_beams" not in options:
        assert tokens(small, **options) == tokens(small)


def channels(first: int, second: int):
    """A model with gates, and masks that keep so many channels of its front-end, softly."""
    gated, masks = gate(), {}
    for name, number in (("front_end.0", first), ("front_end.1", second)):
        units = gated.site_map.sites[name].units
        order = torch.randperm(units, generator=torch.Generator().manual_seed(1))
        masks[name] = (order < number) * (0.5 + order / (2 * units))
    return gated, resolve(gated.site_map, masks)


@pytest.mark.parametrize("first, second", [(3, 20), (0, 20), (5, 0), (0, 0), (16, 32)])
def test_channels_of_the_front_end_go_with_soft_masks(first, second, tmp_path):
    gated, masks = channels(first=first, second=second)
    small = check(gated, masks)
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(logits(loaded), logits(small)) and plan_of(loaded) == plan_of(small)
    assert family_of(small).hears_nothing(small) == (0 in (first, second))


def test_refitting_its_readers_brings_the_cut_front_end_nearer():
    gated, masks = channels(first=8, second=16)
    masks = {name: (mask > 0).float() for name, mask in masks.items()}
    dense = logits(moonshine())
    before = (logits(cut(gated, masks)) - dense).square().mean()
    refit(gated, moonshine(), masks, [lambda model: model(**batch())], choose=False)
    after = (logits(cut(gated, masks)) - dense).square().mean()
    assert after < 0.5 * before


@pytest.mark.parametrize("kind", ["weight", "rank"])
def test_matrices_are_gated_where_they_are_called(kind, tmp_path):
    gated = inject(moonshine(), Whole((kind,), learned=False)).eval()
    dense = logits(moonshine())
    assert torch.allclose(logits(gated), dense, atol=1e-4)
    for matrix, site in gated.site_map.sites.items():
        gated.gate(matrix).set((torch.arange(site.units) % 3 > 0).float())
        assert not torch.equal(masked := logits(gated), dense), matrix
        dense = masked
    small = cut(gated)
    torch.testing.assert_close(masked, logits(small), atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(load(save(small, tmp_path / "m"))), logits(small))


@pytest.mark.parametrize("name", ["l0_distill", "self_pinching", "magnitude", "prunenet"])
def test_methods_take_it(name):
    model, options = moonshine(), {"budget": {"tolerance": 0.05}}
    labels = torch.tensor([[7, 9, 4], [8, 3, -100]])
    given = {**batch(), "labels": labels}
    given.pop("decoder_input_ids")
    method = make_method(name, options, target=0.2, updates=4)
    gated = inject(model, method).train()
    if hasattr(method, "parameter_groups"):
        optimiser = torch.optim.AdamW(method.parameter_groups(gated), lr=1e-3)
        for _ in range(4):
            (gated(**given).loss + method.loss(gated)).backward()
            optimiser.step()
            optimiser.zero_grad()
            gated.after_update()
    small = cut(gated.eval(), method.masks(gated))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_a_cut_model_is_refitted_and_exported(tmp_path):
    gated = gate()
    masks = random_structure(gated, 2)
    small = check(gated, masks)
    about = export_transformers(small, tmp_path / "theirs")
    assert about["needs_code"] and about["auto_class"] == "AutoModelForSpeechSeq2Seq"
    differences = export_onnx(small, tmp_path / "onnx")
    assert len(differences) == 3 and max(differences.values()) < TOLERANCE


def test_what_is_cut_already_or_shares_its_keys_is_refused(tmp_path):
    gated = gate()
    small = check(gated, random_structure(gated, 2))
    with pytest.raises(ModelError, match="a model that is already cut can't be gated"):
        inject(small, Whole(learned=False))
    sharing = {"encoder_num_key_value_heads": 2, "decoder_num_key_value_heads": 2}
    with pytest.raises(ModelError, match="heads that share keys and values can't be pruned"):
        inject(from_config(NAME, {**SIZES, **sharing}), Whole(learned=False))
    moonshine().save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path), NAME, offline=True)
    assert torch.allclose(logits(loaded), logits(moonshine()), atol=1e-5)
