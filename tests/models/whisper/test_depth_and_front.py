"""Whisper's blocks and the channels of its front-end: masked equals cut, exact sizes, decoding."""

import json
from functools import partial

import pytest
import torch
from random_structures import random_structure
from tiny_models import saturate
from tiny_whisper import (
    SIZES,
    Whisper,
    assert_the_cache_gives_the_whole_sequence,
    batch,
    check,
    logits,
    tokens,
    whisper,
)

from espnet_prune.budget import resolve
from espnet_prune.cli import main
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.export.onnx import export_onnx
from espnet_prune.export.transformers_folder import CODE, export_transformers
from espnet_prune.methods import make_method
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.surgery.families import family_of
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.refit import refit

DEEP = {"encoder_layers": 3, "decoder_layers": 3}
FRONT = "front_end.0"
ENCODER = [f"encoder.block.{index}" for index in range(3)]
DECODER = [f"decoder.block.{index}" for index in range(3)]
GONE = [
    [ENCODER[1]],
    [DECODER[0]],
    [DECODER[1]],
    DECODER[:2],
    DECODER,
    ENCODER,
    [ENCODER[0], DECODER[2]],
]


def gated_with(masks=None, **options):
    """A deep model with gates on every site; those of ``masks`` (resolved or not) are set."""
    gated = inject(whisper(**DEEP, **options), Whisper(learned=False)).eval()
    for name, mask in (masks or {}).items():
        gated.gate(name).set(mask)
    return gated


def without(*names: str) -> dict[str, torch.Tensor]:
    """Masks of blocks that are gone."""
    return {name: torch.zeros(1) for name in names}


def some_channels(soft: bool = False) -> dict[str, torch.Tensor]:
    """The front-end's mask: two of three channels."""
    mask = (torch.arange(SIZES["d_model"]) % 3 > 0).float()
    return {FRONT: mask * torch.linspace(0.4, 1.0, len(mask)) if soft else mask}


def test_open_gates_change_nothing_bit_for_bit():
    gated, stock = gated_with(), whisper(**DEEP)
    assert {FRONT, *ENCODER, *DECODER} <= set(gated.gate_names())
    assert torch.equal(logits(gated), logits(stock))
    assert tokens(gated.model) == tokens(stock)
    released = gated.release()
    assert torch.equal(logits(released), logits(stock))
    kinds = [type(module) for module in released.modules()]
    assert kinds == [type(module) for module in stock.modules()]


def test_random_structures_are_what_they_say():
    """Of odd seeds with soft masks, which are folded in."""
    gated, gone = gated_with(), set()
    for seed in range(10):
        structure = random_structure(gated, seed)
        for name, mask in structure.items():
            gated.gate(name).set(mask)
        small = check(gated)
        assert tokens(small) == tokens(small, use_cache=False)
        gone |= {name for name in (*ENCODER, *DECODER) if not structure[name].any()}
        kept = int(structure[FRONT].count_nonzero())
        if 0 < kept < len(structure[FRONT]):
            gone.add(FRONT)
            assert small.model.encoder.conv1.out_channels == kept
    assert {FRONT, DECODER[0]} <= gone and gone & set(ENCODER)


@pytest.mark.parametrize("names", GONE, ids=" ".join)
def test_blocks_are_gone_and_decoding_counts_on(names, tmp_path):
    small = check(gated_with(without(*names)))
    for stack in ("encoder", "decoder"):
        layers = getattr(small.model, stack).layers
        assert len(layers) == max(1, 3 - sum(name.startswith(stack) for name in names))
    assert sum(p.numel() for p in whisper(**DEEP).parameters()) > sum(
        p.numel() for p in small.parameters()
    )
    plain = tokens(small, use_cache=False)
    assert tokens(small) == plain
    assert tokens(small, cache_implementation="static") == plain
    beams = {"num_beams": 3}
    assert tokens(small, **beams) == tokens(small, **beams, use_cache=False)
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(logits(loaded), logits(small))
    assert plan_of(loaded) == plan_of(small)
    assert tokens(loaded) == plain


def test_the_cache_gives_the_logits_of_the_whole_sequence_without_the_first_block():
    assert_the_cache_gives_the_whole_sequence(cut(gated_with(without(DECODER[0]))))


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_channels_of_the_front_end(soft, tmp_path):
    small = check(gated_with(some_channels(soft)))
    first, second = small.model.encoder.conv1, small.model.encoder.conv2
    assert (first.out_channels, second.in_channels, second.out_channels) == (10, 10, 16)
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(logits(loaded), logits(small)) and plan_of(loaded) == plan_of(small)
    dense = sum(p.numel() for p in whisper(**DEEP).parameters())
    a_channel = 3 * SIZES["num_mel_bins"] + 1 + 3 * SIZES["d_model"]
    assert dense - sum(p.numel() for p in small.parameters()) == 6 * a_channel


def test_without_any_channel_the_encoder_still_runs_and_is_saved(tmp_path):
    assert not family_of(whisper()).hears_nothing(cut(gated_with(some_channels())))
    small = check(gated_with({FRONT: torch.zeros(SIZES["d_model"])}))
    assert family_of(small).hears_nothing(small)
    loaded = load(save(small, tmp_path / "small"))
    assert torch.equal(logits(loaded), logits(small))
    with pytest.raises(ModelError, match="conv1: a SilentConvolution, for which transformers"):
        export_transformers(small, tmp_path / "out")


def test_only_the_sites_that_a_method_names_lose_anything():
    """As the recipes of Whisper name theirs."""
    options = {"sites": ["head", "feed_forward_unit", "branch"]}
    gated = inject(whisper(**DEEP), make_method("uniform_magnitude", options, target=0.3))
    assert not {FRONT, *ENCODER, *DECODER} & set(gated.gate_names())
    budget = gated.budget
    encoder, decoder = (4 * 16 + 2 * 24) * 16, (8 * 16 + 2 * 20) * 16  # matrices
    biases = (3 * 16 + 24 + 16) + (6 * 16 + 20 + 16)
    norms = 5 * 2 * 16
    assert budget.prunable == 3 * (encoder + decoder + biases + norms)


def test_a_plan_from_before_these_sites_is_read(tmp_path):
    gated = gated_with()
    for name, site in gated.site_map.sites.items():
        if site.kind == "head":
            gated.gate(name).set((torch.arange(site.units) > 1).float())
    small = cut(gated)
    path = save(small, tmp_path / "old") / "model.json"
    text = json.loads(path.read_text())
    for name in (FRONT, *ENCODER, *DECODER):
        del text["config"]["plan"]["sites"][name]
    path.write_text(json.dumps(text))
    assert torch.equal(logits(load(tmp_path / "old")), logits(small))


@pytest.mark.parametrize("masks", [without(ENCODER[1]), without(DECODER[1]), some_channels()])
def test_a_cut_model_is_not_gated_again(masks):
    small = cut(gated_with(masks))
    del small.espnet_prune_plan  # by its shape alone
    with pytest.raises(ModelError, match="already cut"):
        inject(small, Whisper())


def test_heads_that_align_words_are_forgotten_with_a_decoder_block():
    for name, left in ((DECODER[0], None), (ENCODER[0], [[1, 1]])):
        gated = gated_with(without(name))
        gated.model.generation_config.alignment_heads = [[1, 1]]
        assert cut(gated).generation_config.alignment_heads == left


def test_fewer_blocks_are_the_stock_class_which_others_load(tmp_path):
    import transformers

    small = cut(gated_with(without(ENCODER[0], *DECODER[:2])))
    about = export_transformers(small, tmp_path / "out")
    assert about["needs_code"] is False and not (tmp_path / "out" / CODE.name).exists()
    read = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "out").eval()
    assert (read.config.encoder_layers, read.config.decoder_layers) == (2, 1)
    torch.testing.assert_close(logits(read), logits(small), atol=1e-5, rtol=1e-5)
    assert tokens(read) == tokens(small)
    again = cut(inject(read, Whisper(learned=False)))  # another teacher, to be pruned
    assert torch.equal(logits(again), logits(read))


def test_a_cut_front_end_needs_code_and_says_so(tmp_path, capsys):
    save(cut(gated_with(some_channels())), tmp_path / "model")
    folders = {"--model": str(tmp_path / "model"), "--out": str(tmp_path / "out")}
    assert main(["export_transformers", *(word for pair in folders.items() for word in pair)]) == 0
    told = capsys.readouterr().out
    assert "trust_remote_code=True" in told
    assert "2 parts" in told and "such as model.encoder.conv1, model.encoder.conv2; CTr" in told
    config = json.loads((tmp_path / "out" / "config.json").read_text())["pruned"]
    assert config["shapes"] == {
        "model.encoder.conv1.weight": [10, SIZES["num_mel_bins"], 3],
        "model.encoder.conv1.bias": [10],
        "model.encoder.conv2.weight": [SIZES["d_model"], 10, 3],
    }


def test_onnx_says_what_torch_says(tmp_path):
    """The export compares both itself, encoder and decoder at three inputs each."""
    masks = {**some_channels(soft=True), **without(ENCODER[1], DECODER[0])}
    differences = export_onnx(cut(gated_with(masks)), tmp_path / "onnx")
    assert len(differences) == 6 and max(differences.values()) < 1e-4


@pytest.mark.parametrize("measure", ["parameters", "macs"])
def test_expected_size_is_the_hard_size_once_gates_saturate(measure):
    gated = inject(whisper(**DEEP), Whisper(measure=measure)).eval()
    saturate(gated)
    assert {FRONT, *ENCODER, *DECODER} <= set(gated.gate_names())
    expected = float(gated.expected_sparsity())
    assert expected == pytest.approx(gated.hard_sparsity(), abs=1e-9)
    assert 0.1 < expected < 0.9


def test_learned_masks_of_channels_and_blocks_feel_the_loss():
    method = make_method("l0", {"sites": ["front_end_channel", "block"]}, target=0.3, updates=4)
    gated = inject(whisper(**DEEP), method).train()
    names = [FRONT, *ENCODER, *DECODER]
    assert sorted(gated.gate_names()) == sorted(names)
    for name in names:
        gated.gate(name).log_alpha.data.zero_()  # where few draws are saturated
    gated(**batch()).loss.backward()
    felt = {name for name in names if gated.gate(name).log_alpha.grad.any()}
    assert FRONT in felt and felt & set(ENCODER) and felt & set(DECODER)


@pytest.mark.parametrize(
    "name, own", [("layer_drop", {}), ("comp", {"comp": {"layer_share": 0.9}})]
)
def test_methods_that_take_blocks_out(name, own, tmp_path):
    options = {
        **own,
        "sites": ["head", "feed_forward_unit", "front_end_channel"],
        "calibration": {"utterances": 2},
        "budget": {"tolerance": 0.02},
    }
    method = make_method(name, options, target=0.5)
    gated = inject(whisper(**DEEP), method).eval()
    masks = method.masks(gated, [lambda: gated(**batch()).loss] * 2)
    blocks = [site.name for site in gated.site_map.of_kinds(("block",))]
    assert [name for name in blocks if not masks[name].any()]
    assert float(gated.budget.sparsity(gated.budget.hard(masks))) == pytest.approx(0.5, abs=0.02)
    small = cut(gated, masks)
    assert torch.equal(logits(load(save(small, tmp_path / "small"))), logits(small))


@pytest.mark.parametrize("kinds", [("head", "front_end_channel"), ("front_end_channel",)])
def test_the_encoder_is_solved_anew_at_the_cut(kinds):
    """The second convolution for the channels that are left, then the blocks."""
    teacher = whisper(**DEEP)
    gated = inject(whisper(**DEEP), Whisper(kinds, learned=False)).eval()
    heads = [name for name in gated.gate_names() if name.startswith("encoder")]
    some = {name: (torch.arange(8) % 2).float() for name in heads}
    masks = resolve(gated.site_map, {**some_channels(), **some})
    noise = torch.randn(
        6, 1, SIZES["num_mel_bins"], 200, generator=torch.Generator().manual_seed(4)
    )

    def lost(of) -> float:
        with torch.no_grad(), holding(gated, masks):
            ours = torch.cat([gated.model.model.encoder(x).last_hidden_state for x in of])
            theirs = torch.cat([teacher.model.encoder(x).last_hidden_state for x in of])
        return float((ours - theirs).square().mean())

    def run(features, model):
        return getattr(model, "model", model)(features, decoder_input_ids=torch.tensor([[1]]))

    before = lost(noise[:4]), lost(noise[4:])
    masks = refit(gated, teacher, masks, [partial(run, x) for x in noise[:4]], choose=True)
    assert int(masks[FRONT].count_nonzero()) == 10
    assert lost(noise[:4]) < 0.6 * before[0] and lost(noise[4:]) < 0.8 * before[1]


def test_even_spaces_are_for_one_stack():
    method = make_method("layer_drop", {"layer_drop": {"order": "spaced"}}, target=0.5)
    with pytest.raises(ConfigError, match="spaced is for one stack.*choose loss"):
        method.masks(inject(whisper(), method).eval())


@pytest.mark.slow
def test_fewer_blocks_go_on_to_ctranslate2(tmp_path):
    """As ``docs/how-to/export.md`` says."""
    ctranslate2 = pytest.importorskip("ctranslate2", reason="utils/setup_env.sh --slow")
    assert main(["get_whisper", "--whisper", "random", "--out", str(tmp_path / "random")]) == 0
    settings = json.loads((tmp_path / "random/config.json").read_text())
    ids = {key: value for key, value in settings.items() if key.endswith("_token_id")}
    model = whisper(**DEEP, **ids, vocab_size=settings["vocab_size"])
    gated = inject(model, Whisper(learned=False)).eval()
    for name, mask in without(ENCODER[0], *DECODER[:2]).items():
        gated.gate(name).set(mask)
    small = cut(gated)
    export_transformers(small, tmp_path / "out", str(tmp_path / "random"))
    convert = ctranslate2.converters.TransformersConverter(
        str(tmp_path / "out"), copy_files=["tokenizer.json"]
    )
    convert.convert(str(tmp_path / "ct2"))
    theirs = ctranslate2.models.Whisper(str(tmp_path / "ct2"), compute_type="float32")
    heard = batch()["input_features"][:1]
    view = ctranslate2.StorageView.from_array(heard.numpy())
    untimed = json.loads((tmp_path / "random/generation_config.json").read_text())
    start = [settings["decoder_start_token_id"], untimed["no_timestamps_token_id"]]
    options = {"beam_size": 1, "suppress_tokens": [], "suppress_blank": False}
    found = theirs.generate(view, [start], max_length=14, **options)[0].sequences_ids[0]
    assert len(set(found)) > 3
    said = torch.tensor([[*start, *found]])
    with torch.no_grad():
        best = small(heard, decoder_input_ids=said).logits.argmax(dim=-1)[0].tolist()
    assert best[len(start) - 1 : -1] == found
