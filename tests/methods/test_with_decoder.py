"""Every method that prunes units does so in encoder and decoder together, or says why not."""

import espnet_prune.models.espnet.choices  # noqa: F401  isort: skip  (stubs before ESPnet)
import json
from functools import partial

import pytest
import torch
from tiny_models import randomise

from espnet_prune.distill import DistillConfig
from espnet_prune.errors import ConfigError
from espnet_prune.methods import METHODS, make_method
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.sites import UNIT_KINDS
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.holding import holding
from espnet_prune.train.distilled_model import DistilledModel

SAMPLES = 9600
OTHERS = {
    "importance",
    "module_error",
    "unpruned",
    "uniform_magnitude_weights",
    "obs_weights",
    "self_pinching_weights",
    "acip",
    "flexigpt",
    "ld_pruner",
    "low_rank",
    "performer",
    "prunenet",  # feed-forwards are less than half here
}
TOKENS = ["<blank>", "<unk>", "a", "b", "c", "<space>", "<sos/eos>"]


def dense() -> torch.nn.Module:
    torch.manual_seed(0)
    encoder = {"output_size": 16, "attention_heads": 2, "linear_units": 48, "num_blocks": 2}
    encoder |= {"rel_pos_type": "latest", "cnn_module_kernel": 7, "macaron_style": True}
    config = {
        "token_list": TOKENS,
        "frontend": "default",
        "frontend_conf": {"n_fft": 512, "hop_length": 160, "n_mels": 20},
        "specaug": None,
        "normalize": None,
        "encoder": "conformer",
        "encoder_conf": encoder,
        "decoder": "transformer",
        "decoder_conf": {"attention_heads": 4, "linear_units": 48, "num_blocks": 2},
        "model_conf": {"ctc_weight": 0.3},
    }
    return randomise(build_asr_model(config)).eval()


def batch(utterances: int = 1, seed: int = 3) -> tuple[torch.Tensor, ...]:
    """Samples with their lengths, tokens with theirs."""
    generator = torch.Generator().manual_seed(seed)
    speech = torch.randn(utterances, SAMPLES, generator=generator)
    text = torch.randint(2, 6, (utterances, 4), generator=generator)
    return speech, torch.tensor([SAMPLES] * utterances), text, torch.tensor([4] * utterances)


def passes_of(gated) -> list:
    return [partial(lambda b: gated(*b)[0], batch(seed=seed)) for seed in range(4)]


@torch.no_grad()
def outputs(model) -> torch.Tensor:
    """What encoder and decoder make of two utterances, in one row."""
    speech, lengths, text, text_lengths = batch(2)
    encoded, lengths = model.encode(speech, lengths)
    decoded, _ = model.decoder(encoded, lengths, text, text_lengths)
    return torch.cat([encoded.flatten(), decoded.flatten()])


def method_of(name: str, target: float = 0.5, **options):
    return make_method(name, {"decoder": {}, **options}, target=target, seed=1, updates=50)


def chosen(method, gated) -> dict[str, torch.Tensor]:
    passes = [passes_of(gated)] if method.calibration_utterances else []
    masks = method.masks(gated, *passes)
    method.rewrite(gated, masks)
    return masks


@pytest.mark.parametrize("name", sorted(set(METHODS) - OTHERS))
def test_the_target_counts_both_and_masked_equals_cut(name):
    method = method_of(name, budget={"tolerance": 0.01})
    gated = inject(dense(), method).eval()
    masks = chosen(method, gated)
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(0.5, abs=0.01)
    small = cut(gated, masks).eval()
    sizes = [sum(p.numel() for p in model.parameters()) for model in (gated.model, small)]
    assert sizes[0] - sizes[1] == gated.budget.prunable - gated.budget.hard(masks)
    with torch.no_grad(), holding(gated, masks):
        masked = outputs(gated.model)
    assert float((outputs(small) - masked).abs().max()) < 2e-5


@pytest.mark.parametrize("name", ["magnitude", "uniform_magnitude", "fisher"])
def test_a_budget_in_macs_is_reached_too(name):
    method = method_of(name, budget={"measure": "macs", "tolerance": 0.01})
    gated = inject(dense(), method).eval()
    reached = float(gated.budget.sparsity(gated.budget.hard(chosen(method, gated))))
    assert reached == pytest.approx(0.5, abs=0.02)


def test_the_same_share_of_the_decoder_goes_by_uniform_magnitude():
    method = method_of("uniform_magnitude")
    gated = inject(dense(), method).eval()
    masks = method.masks(gated)
    units = {n: m for n, m in masks.items() if n.startswith("decoder.") and n.endswith("units")}
    assert len(units) == 2
    assert all(0.3 < float(mask.mean()) < 0.7 for mask in units.values())


@pytest.mark.parametrize("decoder_measured", [True, False])
def test_module_error_needs_errors_of_the_decoder_too(decoder_measured, tmp_path):
    path = tmp_path / "sensitivity.json"
    method = method_of("module_error", module_error={"file": str(path)}, budget={"tolerance": 0.01})
    gated = inject(dense(), method).eval()
    sites = {}
    for site in gated.site_map.of_kinds(UNIT_KINDS):
        if decoder_measured or not site.name.startswith("decoder."):
            removals = [{"removed": site.units, "loss_change": 1.0}]
            mean = float(site.magnitudes().mean())
            sites[site.name] = {"units": site.units, "mean_magnitude": mean, "removals": removals}
    path.write_text(json.dumps({"schema": 1, "sites": sites}))
    if decoder_measured:
        reached = float(gated.budget.sparsity(gated.budget.hard(method.masks(gated))))
        assert reached == pytest.approx(0.5, abs=0.01)
    else:
        with pytest.raises(ConfigError, match="'decoder.*among its --sites and with --decoder"):
            method.masks(gated)


def test_a_latent_before_the_decoder_is_refused():
    with pytest.raises(ConfigError, match="decoder: .*what the encoder gives"):
        method_of("ld_pruner")


def test_even_spaces_over_two_stacks_are_refused():
    with pytest.raises(ConfigError, match="layer_drop: order: spaced.*choose loss"):
        method_of("layer_drop", layer_drop={"order": "spaced"})


def test_layer_drop_takes_blocks_of_the_decoder_that_do_nothing():
    model = dense()
    with torch.no_grad():
        for layer in model.decoder.decoders:
            lasts = (layer.self_attn.linear_out, layer.src_attn.linear_out, layer.feed_forward.w_2)
            for parameter in (p for last in lasts for p in last.parameters()):
                parameter.zero_()
    expected = outputs(model)
    method = method_of("layer_drop", target=0.3)
    gated = inject(model, method).eval()
    masks = method.masks(gated, [lambda: (outputs(model) - expected).square().mean()])
    blocks = [site.name for site in gated.site_map.of_kinds(("block",))]
    assert [name for name in blocks if not masks[name].any()] == ["decoder.block.0"]
    thinned = {n.rpartition(".block.")[2][0] for n, m in masks.items() if (m == 0).any()}
    assert thinned == {"0", "1"} and all(masks[n].all() for n in masks if n.startswith("block."))


@pytest.mark.parametrize("part", ["label_weight", "attention_weight"])
def test_each_loss_of_the_decoder_reaches_its_gates_and_weights(part):
    parts = ("label_weight", "layer_weight", "ctc_weight", "attention_weight")
    distillation = {name: float(name == part) for name in parts}
    method = method_of("l0_distill")
    gated = inject(dense(), method)
    with torch.no_grad():
        for gate in gated.gates.values():
            gate.log_alpha.zero_()
    model = DistilledModel(
        gated, dense(), DistillConfig(**distillation), method.student, method
    ).train()
    loss, stats, _ = model(*batch(2))
    size = method.loss(gated)
    (loss - size.to(loss.dtype)).backward()
    if part == "attention_weight":
        assert float(stats["loss_att_kl"]) > 0
    for name in ("decoder.block.0.cross_attention.heads", "decoder.block.1.feed_forward.units"):
        assert gated.gate(name).log_alpha.grad.abs().sum() > 0
    assert gated.model.decoder.decoders[0].self_attn.linear_q.weight.grad.abs().sum() > 0
