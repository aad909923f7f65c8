"""Sites of the attention decoder: masked == cut, sizes exact, saved == loaded, what is refused."""

import espnet_prune.models.espnet.choices  # noqa: F401  isort: skip  (stubs before ESPnet)
import pytest
import torch
from tiny_asr import asr_config
from tiny_models import AllSites, random_mask, randomise, saturate
from torch.utils.flop_counter import FlopCounterMode

from espnet_prune.budget import Budget
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.export.onnx import export_onnx, graphs_of
from espnet_prune.methods import make_method
from espnet_prune.models.espnet.build import build_asr_model, load_trained
from espnet_prune.models.espnet.folder import write_espnet_folder
from espnet_prune.models.transformer_decoder.fast_decoder import CachedDecoder, speed_up
from espnet_prune.sites import DecoderConfig
from espnet_prune.surgery import cut, cut_to_plan, inject, load, plan_of, save, sites_of

TOLERANCE = 2e-5
SECONDS, FRAMES, SIZE = 1.2, 120, 16
DECODING = DecoderConfig(tokens_per_second=6, beam_size=3)
UNITS = ("head", "feed_forward_unit")
GROUPS = [
    f"decoder.block.{place}"
    for place in (
        "0.attention.heads",
        "0.cross_attention.heads",
        "0.feed_forward.units",
        "1.attention",
        "1.cross_attention",
        "1.feed_forward",
        "0",
    )
]


class WithDecoder(AllSites):
    """A method of tests: fixed gates on every site, those of the decoder too."""

    reference_seconds = SECONDS
    decoder = DECODING


def config(**changes) -> dict:
    values = {
        "encoder": "conformer",
        "encoder_conf": {
            "output_size": SIZE,
            "attention_heads": 2,
            "linear_units": 8,
            "num_blocks": 1,
            "rel_pos_type": "latest",
            "cnn_module_kernel": 7,
        },
        "decoder": "transformer",
        "decoder_conf": {"attention_heads": 4, "linear_units": 24, "num_blocks": 2},
    }
    return asr_config(**{**values, **changes})


def dense(**changes) -> torch.nn.Module:
    torch.manual_seed(0)
    return randomise(build_asr_model(config(**changes))).eval()


@torch.no_grad()
def outputs(model: torch.nn.Module) -> torch.Tensor:
    """Scores (2, L, V) of tokens after two utterances of unequal length."""
    generator = torch.Generator().manual_seed(7)
    feats = torch.randn(2, FRAMES, 20, generator=generator)
    encoded, lengths, _ = model.encoder(feats, torch.tensor([FRAMES, FRAMES * 3 // 4]))
    text, text_lengths = torch.tensor([[6, 2, 3, 5], [6, 4, 2, 6]]), torch.tensor([4, 3])
    return model.decoder(encoded, lengths, text, text_lengths)[0]


def gated_with(setter, kinds=(*UNITS, "branch", "block")):
    """A gated model whose decoder's masks are ``setter(site)``; the encoder's are open."""
    gated = inject(dense(), WithDecoder(kinds, learned=False)).eval()
    for name in gated.gate_names():
        if name.startswith("decoder."):
            gated.gate(name).set(setter(gated.site_map.sites[name]))
    return gated


def closing(group: str):
    return lambda site: torch.full((site.units,), float(site.name != group))


@torch.no_grad()
def macs_of(model: torch.nn.Module) -> int:
    """What runs: the encoder once, the cached decoder for every token of all hypotheses."""
    with FlopCounterMode(display=False) as counter:
        feats = torch.zeros(1, FRAMES, 20)
        encoded, _, _ = model.encoder(feats, torch.tensor([FRAMES]))
        scorer, states = CachedDecoder(model.decoder), [None] * DECODING.beam_size
        xs = encoded.expand(DECODING.beam_size, -1, -1)
        for length in range(1, 1 + round(DECODING.tokens_per_second * SECONDS)):
            ys = torch.full((DECODING.beam_size, length), 2)
            _, states = scorer.batch_score(ys, states, xs)
    return counter.get_total_flops() // 2


def check(gated) -> torch.nn.Module:
    """Masked equals cut; parameters and MACs are exactly what the budget says."""
    small = cut(gated).eval()
    assert float((outputs(gated.model) - outputs(small)).abs().max()) < TOLERANCE
    masks = gated.hard_masks()
    kept = sum(p.numel() for part in (small.encoder, small.decoder) for p in part.parameters())
    assert kept == gated.budget.total - gated.budget.prunable + gated.budget.hard(masks)
    macs = Budget(gated.site_map, gated.gate_names(), "macs")
    assert macs_of(small) == macs.total - macs.prunable + macs.hard(masks)
    return small


def test_open_gates_change_nothing_bit_for_bit():
    gated = gated_with(lambda site: torch.ones(site.units))
    assert torch.equal(outputs(gated.model), outputs(dense()))
    assert set(gated.model.state_dict()) == set(dense().state_dict())
    assert torch.equal(outputs(check(gated)), outputs(dense()))


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("kinds", [("head",), ("feed_forward_unit",), UNITS], ids="-".join)
def test_masked_equals_cut_for_units(kinds, soft):
    gated = gated_with(lambda site: random_mask(site, soft), kinds)
    assert gated.hard_sparsity() > 0
    check(gated)


@pytest.mark.parametrize("branch", ["attention", "cross_attention", "feed_forward"])
def test_masked_equals_cut_for_a_branch_that_is_there_in_part(branch):
    name = f"decoder.block.1.{branch}"
    check(gated_with(lambda s: torch.full((s.units,), 0.4 if s.name == name else 1.0), ("branch",)))


@pytest.mark.parametrize("group", GROUPS)
def test_masked_equals_cut_with_a_whole_group_gone(group):
    gated = gated_with(closing(group))
    assert gated.hard_sparsity() > 0
    check(gated)


def test_everything_gone_still_runs():
    small = check(gated_with(lambda site: torch.zeros(site.units)))
    assert len(small.decoder.decoders) == 0


def test_all_branches_gone_but_the_blocks_kept_still_runs():
    small = check(gated_with(lambda s: torch.full((s.units,), float(s.kind == "block"))))
    assert len(small.decoder.decoders) == 2


def test_encoder_and_decoder_are_cut_together():
    gated = inject(dense(), WithDecoder(learned=False)).eval()
    for name in gated.gate_names():
        gated.gate(name).set(random_mask(gated.site_map.sites[name], True))
    check(gated)


def test_expected_size_equals_hard_size_when_gates_saturate():
    gated = inject(dense(), WithDecoder()).eval()
    saturate(gated)
    with torch.no_grad():
        assert float(gated.expected_sparsity()) == pytest.approx(gated.hard_sparsity(), abs=1e-9)


def test_the_encoder_alone_is_counted_unless_the_decoder_is_asked_for():
    model = dense()
    alone, both = sites_of(model, SECONDS), sites_of(model, SECONDS, DECODING)
    assert set(alone.sites) == {n for n in both.sites if not n.startswith("decoder.")}
    size = Budget(both, list(both.sites)).total - Budget(alone, list(alone.sites)).total
    assert size == sum(p.numel() for p in model.decoder.parameters())
    blocks = {n: s.block for n, s in both.sites.items() if s.kind == "block"}
    assert blocks == {"block.0": 0, "decoder.block.0": 1, "decoder.block.1": 2}


def test_more_tokens_and_a_wider_beam_cost_more():
    def macs(**options) -> int:
        site_map = sites_of(dense(), SECONDS, DecoderConfig(**options))
        return Budget(site_map, list(site_map.sites), "macs").prunable

    assert macs(beam_size=1) < macs() < macs(tokens_per_second=8)


def test_one_mask_serves_encoder_and_decoder_of_an_update():
    gated = inject(dense(), WithDecoder()).train()
    with torch.no_grad():
        for gate in gated.gates.values():
            gate.log_alpha.zero_()
    seen = []
    site = gated.site_map.sites["block.0.attention.heads"]
    handles = [
        m.register_forward_pre_hook(lambda *unused: seen.append(site.consumer.input_scale.clone()))
        for m in (gated.model.encoder, gated.model.decoder)
    ]
    outputs(gated.model)
    assert len(handles) == len(seen) == 2
    assert torch.equal(*seen)
    assert site.consumer.input_scale is None


@pytest.fixture(params=["units", "block gone", "all gone"])
def small(request) -> torch.nn.Module:
    setters = {
        "units": lambda site: random_mask(site, True),
        "block gone": closing("decoder.block.0"),
        "all gone": lambda site: torch.zeros(site.units),
    }
    return cut(gated_with(setters[request.param])).eval()


def test_saved_and_loaded_is_equal(small, tmp_path):
    again = load(save(small, tmp_path / "one"))
    assert torch.equal(outputs(again), outputs(small))
    assert plan_of(again) == plan_of(small)
    save(again, tmp_path / "two")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_folder_for_stock_espnet_holds_the_same_model(small, tmp_path):
    folder = write_espnet_folder(small, tmp_path)
    again = load_trained(folder / "config.yaml", folder / "model.pth")
    assert torch.equal(outputs(again), outputs(small))
    assert plan_of(again) == plan_of(small)


def test_stock_espnet_decodes_it_and_so_does_the_fast_search(small, tmp_path):
    from espnet2.bin.asr_inference import Speech2Text

    folder = write_espnet_folder(small, tmp_path)
    files = str(folder / "config.yaml"), str(folder / "model.pth")
    search = Speech2Text(*files, beam_size=3, ctc_weight=0.3, lm_weight=0.0, maxlenratio=-6)
    speech = torch.randn(12000, generator=torch.Generator().manual_seed(5)).numpy()
    stock = search(speech)
    assert speed_up(search.beam_search)
    fast = search(speech)
    assert [hypothesis[2] for hypothesis in fast] == [hypothesis[2] for hypothesis in stock]
    scores = [[float(hypothesis[3].score) for hypothesis in found] for found in (fast, stock)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_its_step_is_exported_beside_the_encoder(small):
    parts = {part.file: part for part in graphs_of(small)}
    assert set(parts) == {"model.onnx", "decoder.onnx"}
    step = parts["decoder.onnx"]
    for length in step.tried:
        inputs = step.example(length)
        with torch.no_grad():
            found, expected = step.graph(*inputs), step.expected(*inputs)[0]
        assert float((found - expected).abs().max()) < TOLERANCE


@pytest.mark.slow
def test_onnx_runs_a_step_without_some_branches(tmp_path):
    gone = [f"decoder.block.{name}" for name in ("0.attention", "1.cross_attention")]
    gated = gated_with(lambda site: random_mask(site, True) * float(site.name not in gone))
    differences = export_onnx(cut(gated).eval(), tmp_path / "onnx")
    assert (tmp_path / "onnx/decoder.onnx").exists() and len(differences) == 4 + 3
    assert max(differences.values()) < 1e-4


def test_a_plan_rebuilds_the_shape(small):
    rebuilt = cut_to_plan(dense(), plan_of(small))
    rebuilt.load_state_dict(small.state_dict())
    assert torch.equal(outputs(rebuilt), outputs(small))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"decoder": None, "model_conf": {"ctc_weight": 1.0}}, "no decoder.*key `decoder`"),
        ({"decoder": "rnn", "decoder_conf": {}}, "RNNDecoder, expected `decoder: transformer`"),
        ({"decoder_conf": {"normalize_before": False}}, "normalize_before: true"),
        ({"decoder_conf": {"concat_after": True}}, "concat_after: false"),
        ({"decoder_conf": {"gradient_checkpoint_layers": [1]}}, "gradient_checkpoint_layers"),
    ],
)
def test_other_decoders_are_refused_with_the_remedy(changes, message):
    with pytest.raises(ModelError, match=message):
        inject(dense(**changes), WithDecoder())


def test_half_precision_and_tied_matrices_are_refused():
    model = dense()
    first, second = model.decoder.decoders
    second.src_attn.linear_out.weight = first.src_attn.linear_out.weight
    with pytest.raises(ModelError, match="decoder.block.0.cross_attention.heads.*tied.*untie"):
        inject(model, WithDecoder())
    model = dense()
    model.decoder.half()
    with pytest.raises(ModelError, match="float16.*float32"):
        inject(model, WithDecoder())


def test_the_encoder_by_itself_has_no_decoder():
    with pytest.raises(ModelError, match="no decoder"):
        inject(dense().encoder, WithDecoder())


def test_whispers_decoder_needs_no_key():
    pytest.importorskip("transformers")
    from tiny_whisper import whisper

    with pytest.raises(ModelError, match="Whisper's is always pruned.*leave the method's key"):
        sites_of(whisper(), SECONDS, DECODING)


@pytest.mark.parametrize("name", ["uniform_magnitude_weights", "self_pinching_weights"])
def test_single_weights_of_a_decoder_are_refused(name):
    with pytest.raises(ConfigError, match="unknown key 'decoder'"):
        make_method(name, {"decoder": {}})


@pytest.mark.parametrize("options", [{"beam_size": 0}, {"tokens_per_second": 0}])
def test_impossible_assumptions_are_refused(options):
    with pytest.raises(ConfigError, match=f"decoder: {next(iter(options))}"):
        DecoderConfig(**options)
