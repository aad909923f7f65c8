"""Sites of transducers: masked == cut, sizes exact, saved == loaded, decoded, what is refused."""

import espnet_prune.models.espnet.choices  # noqa: F401  isort: skip  (stubs before ESPnet)
import pytest
import torch
from random_structures import random_structure
from tiny_asr import TOKENS, asr_config
from tiny_models import AllSites, random_mask, randomise, saturate
from torch.utils.flop_counter import FlopCounterMode

from espnet_prune.budget import Budget, resolve
from espnet_prune.errors import ModelError
from espnet_prune.export.onnx import graphs_of
from espnet_prune.methods import make_method
from espnet_prune.models.espnet.build import build_asr_model, load_trained
from espnet_prune.models.espnet.features import random_outputs
from espnet_prune.models.espnet.folder import write_espnet_folder
from espnet_prune.sites import DecoderConfig
from espnet_prune.surgery import cut, cut_to_plan, inject, load, plan_of, save, sites_of
from espnet_prune.surgery.holding import holding

TOLERANCE = 2e-5
SECONDS, SIZE = 1.2, 16
DECODING = DecoderConfig(tokens_per_second=6, beam_size=3)
SITES = ["decoder.prediction.0.units", "decoder.prediction.1.units", "decoder.joint.units"]


class WithDecoder(AllSites):
    """A method of tests: fixed gates on every site, those of the decoder too."""

    reference_seconds = SECONDS
    decoder = DECODING


def config(**changes) -> dict:
    values = {
        "encoder": "transformer",
        "encoder_conf": {
            "output_size": SIZE,
            "attention_heads": 2,
            "linear_units": 8,
            "num_blocks": 1,
        },
        "decoder": "transducer",
        "decoder_conf": {"hidden_size": 10, "num_layers": 2},
        "joint_net_conf": {"joint_space_size": 12},
    }
    return asr_config(**{**values, **changes})


def dense(**changes) -> torch.nn.Module:
    torch.manual_seed(0)
    return randomise(build_asr_model(config(**changes))).eval()


def gru(**options) -> dict:
    return {"decoder_conf": {"hidden_size": 10, "rnn_type": "gru", **options}}


def outputs(model: torch.nn.Module) -> torch.Tensor:
    """The encoder's output of two utterances, and all scores (2, T, L, V) of a few tokens."""
    return random_outputs(model, SECONDS, decoder=True)


def gated_with(setter, **changes):
    """A gated model whose masks are ``setter(site)``."""
    gated = inject(dense(**changes), WithDecoder(learned=False)).eval()
    for name in gated.gate_names():
        gated.gate(name).set(setter(gated.site_map.sites[name]))
    return gated


def closing(*names: str):
    return lambda site: torch.full((site.units,), float(site.name not in names))


@torch.no_grad()
def macs_of(model: torch.nn.Module) -> int:
    """What runs: the encoder once, a step a token, an evaluation of the joint a path's step."""
    tokens, beam = round(DECODING.tokens_per_second * SECONDS), DECODING.beam_size
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        frames = round(SECONDS * 100)
        encoded, _, _ = model.encoder(torch.zeros(1, frames, 20), torch.tensor([frames]))
        predicted = model.decoder(torch.zeros(beam, tokens, dtype=torch.long))
        path = beam * (encoded.shape[1] + tokens)
        model.joint_network(
            encoded[:, :1].expand(1, path, -1), predicted[:1, :1].expand(1, path, -1)
        )
    return counter.get_total_flops() // 2


def check(gated, masks=None) -> torch.nn.Module:
    """Masked equals cut; parameters and MACs are exactly what the budget says."""
    masks = gated.hard_masks() if masks is None else masks
    small = cut(gated, masks).eval()
    with holding(gated, masks):
        masked = outputs(gated.model)
    assert float((masked - outputs(small)).abs().max()) < TOLERANCE * max(1, masked.abs().max())
    parts = (small.encoder, small.decoder, small.joint_network)
    kept = sum(p.numel() for part in parts for p in part.parameters())
    assert kept == gated.budget.total - gated.budget.prunable + gated.budget.hard(masks)
    macs = Budget(gated.site_map, gated.gate_names(), "macs")
    assert macs_of(small) == macs.total - macs.prunable + macs.hard(masks)
    return small


def test_open_gates_change_nothing_bit_for_bit():
    gated = gated_with(lambda site: torch.ones(site.units))
    assert torch.equal(outputs(gated.model), outputs(dense()))
    assert set(gated.model.state_dict()) == set(dense().state_dict())
    assert torch.equal(outputs(check(gated)), outputs(dense()))


@pytest.mark.parametrize("changes", [{}, gru(), gru(num_layers=2)], ids=["lstm", "gru", "grus"])
def test_masked_equals_cut_on_random_structures(changes):
    gated = inject(dense(**changes), WithDecoder(learned=False)).eval()
    for seed in range(20):
        check(gated, random_structure(gated, seed))


@pytest.mark.parametrize("gone", [*([name] for name in SITES), SITES], ids="-".join)
def test_masked_equals_cut_with_whole_sites_gone(gone):
    small = check(gated_with(closing(*gone)))
    widths = [layer.hidden_size for layer in small.decoder.decoder]
    assert widths == [0 if name in gone else 10 for name in SITES[:2]]


def test_expected_size_equals_hard_size_when_gates_saturate():
    gated = inject(dense(), WithDecoder()).eval()
    saturate(gated)
    with torch.no_grad():
        assert float(gated.expected_sparsity()) == pytest.approx(gated.hard_sparsity(), abs=1e-9)


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
def test_every_site_of_the_decoder_gets_a_gradient_of_the_loss(mixed):
    gated = inject(dense(), WithDecoder()).train()
    with torch.no_grad():
        for gate in gated.gates.values():
            gate.log_alpha.zero_()
    speech = torch.randn(2, 12000, generator=torch.Generator().manual_seed(5))
    text = torch.tensor([[2, 3, 5], [4, 2, -1]])
    batch = (speech, torch.tensor([12000, 9000]), text, torch.tensor([3, 2]))
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        loss = gated(*batch)[0]
    loss.backward()
    for name in SITES:
        assert gated.gate(name).log_alpha.grad.abs().sum() > 0
    units = gated.site_map.sites[SITES[0]]
    assert units.layer.hidden_scale is None and units.read_by.input_scale is None


def test_the_encoder_alone_is_counted_unless_the_decoder_is_asked_for():
    model = dense()
    alone, both = sites_of(model, SECONDS), sites_of(model, SECONDS, DECODING)
    assert set(both.sites) - set(alone.sites) == set(SITES)
    size = Budget(both, list(both.sites)).total - Budget(alone, list(alone.sites)).total
    assert size == sum(
        p.numel() for part in (model.decoder, model.joint_network) for p in part.parameters()
    )
    assert [both.sites[name].block for name in SITES] == [1, 2, 3]


@pytest.fixture(params=["units", "a layer gone", "all gone"])
def small(request) -> torch.nn.Module:
    setters = {
        "units": lambda site: random_mask(site, True),
        "a layer gone": closing(SITES[1]),
        "all gone": closing(*SITES),
    }
    return cut(gated_with(setters[request.param])).eval()


def test_saved_and_loaded_is_equal_and_so_is_the_folder_for_espnet(small, tmp_path):
    again = load(save(small, tmp_path / "one"))
    folder = write_espnet_folder(small, tmp_path / "espnet")
    stock = load_trained(folder / "config.yaml", folder / "model.pth")
    for other in (again, stock):
        assert torch.equal(outputs(other), outputs(small))
        assert plan_of(other) == plan_of(small)
    save(again, tmp_path / "two")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_espnets_search_decodes_it(small, tmp_path):
    from espnet2.bin.asr_inference import Speech2Text

    folder = write_espnet_folder(small, tmp_path)
    files = str(folder / "config.yaml"), str(folder / "model.pth")
    search = Speech2Text(*files, beam_size=3, lm_weight=0.0)
    speech = torch.randn(12000, generator=torch.Generator().manual_seed(5)).numpy()
    (best,) = search(speech)
    assert 0 not in best[2]


def test_a_cut_model_is_cut_again():
    first = cut(gated_with(lambda site: random_mask(site, False))).eval()
    gated = inject(first, WithDecoder(learned=False)).eval()
    masks = random_structure(gated, 4)
    second = check(gated, resolve(gated.site_map, masks))
    rebuilt = cut_to_plan(dense(), plan_of(second))
    rebuilt.load_state_dict(second.state_dict())
    assert torch.equal(outputs(rebuilt), outputs(second))


def test_a_plan_of_another_model_is_refused():
    plan = plan_of(cut(gated_with(closing(SITES[1])))).part("decoder.").to_json()
    for other in ({"num_layers": 3}, {"hidden_size": 9}):
        conf = {"hidden_size": 10, "num_layers": 2, **other, "pruned_arch": plan}
        with pytest.raises(ModelError, match="plan: "):
            dense(decoder_conf=conf)


def test_ctc_alone_is_exported_and_without_ctc_nothing(caplog):
    assert [part.file for part in graphs_of(dense())] == ["model.onnx"]
    assert "a transducer's search isn't exported; CTC alone is" in caplog.text
    with pytest.raises(ModelError, match="no CTC"):
        graphs_of(dense(model_conf={"ctc_weight": 0.0}))


def test_stock_classes_other_joints_and_half_precision_are_refused():
    from espnet2.asr.decoder.transducer_decoder import TransducerDecoder

    model = dense()
    model.joint_network.half()
    with pytest.raises(ModelError, match="float16.*float32"):
        inject(model, WithDecoder())
    model = dense()
    model.joint_network = torch.nn.Bilinear(16, 10, 7)
    with pytest.raises(ModelError, match="joint_network: Bilinear"):
        inject(model, WithDecoder())
    model = dense()
    model.decoder = TransducerDecoder(len(TOKENS))
    with pytest.raises(ModelError, match="build or load the model by espnet_prune"):
        inject(model, WithDecoder())
    with pytest.raises(ModelError, match="give the whole model"):
        sites_of(model.decoder)


@pytest.mark.parametrize("name", ["folding", "kcm"])
def test_methods_that_need_one_reader_refuse_its_units_by_name(name):
    method = make_method(name, {"decoder": {}})
    with pytest.raises(ModelError, match="decoder.prediction.0.units: two layers read its units"):
        method.masks(inject(dense(), method), *([] if name == "folding" else [[print]]))
