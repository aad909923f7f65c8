"""Wav2Vec2-BERT and Parakeet: masked equals cut on random structures, sizes, saved, exported."""

import pytest
import tiny_models
import torch
from random_structures import random_structure
from torch.utils.flop_counter import FlopCounterMode

from espnet_prune.budget import Budget
from espnet_prune.errors import ModelError
from espnet_prune.export.onnx import export_onnx
from espnet_prune.methods import make_method
from espnet_prune.models.graphs import TOLERANCE
from espnet_prune.models.huggingface.build import load_pretrained
from espnet_prune.models.huggingface.teacher import TransformersTeacher
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.refit import refit

SECONDS = 0.8
SIZES = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "layerdrop": 0.0,
    "attn_implementation": "eager",
}
BERT = {"feature_projection_input_dim": 20, "conv_depthwise_kernel_size": 5, "vocab_size": 12}
ENCODER = {
    **SIZES,
    "num_key_value_heads": 4,
    "num_mel_bins": 16,
    "subsampling_conv_channels": 6,
    "conv_kernel_size": 5,
}
# what makes a model: its class, options, frames a second and bins of its features
MODELS = {
    "bert": ("Wav2Vec2BertForCTC", {}, 50, 20),
    "bert_relative": ("Wav2Vec2BertForCTC", {"position_embeddings_type": "relative"}, 50, 20),
    "parakeet": ("ParakeetForCTC", {}, 100, 16),
    "parakeet_biased": ("ParakeetForCTC", {"attention_bias": True}, 100, 16),
}


def configured(name: str, **options):
    import transformers

    kind, own, *_ = MODELS[name]
    options = {**own, **options}
    if kind == "ParakeetForCTC":
        encoder = transformers.ParakeetEncoderConfig(**{**ENCODER, **options})
        config = transformers.ParakeetCTCConfig(
            encoder_config=encoder, vocab_size=12, pad_token_id=0, attn_implementation="eager"
        )
    else:
        config = transformers.Wav2Vec2BertConfig(**{**SIZES, **BERT, **options})
    return getattr(transformers, kind), config


def model_of(name: str, **options) -> torch.nn.Module:
    """A tiny model with CTC, whose weights are such that positions and heads are felt."""
    kind, config = configured(name, **options)
    torch.manual_seed(0)
    model = tiny_models.randomise(kind(config)).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, 0.0, 0.3)
    return model


def core_of(model) -> torch.nn.Module:
    return model.encoder if hasattr(model, "ctc_head") else model.wav2vec2_bert


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
def test_a_folder_of_save_pretrained_is_loaded_and_no_teacher_yet(name, tmp_path):
    model = model_of(name)
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path), MODELS[name][0], offline=True)
    assert torch.allclose(logits(loaded, name), logits(model, name), atol=1e-5)
    with pytest.raises(ModelError, match=f"a {MODELS[name][0]} can't be imported as a teacher"):
        TransformersTeacher(tmp_path).write_tokens(tmp_path / "tokens")


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
