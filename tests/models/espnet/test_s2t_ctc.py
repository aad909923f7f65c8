"""OWSM-CTC, ESPnet's task s2t_ctc, as a whole: pruned, saved, loaded, decoded by stock ESPnet."""

import copy

import numpy
import pytest
import torch
import yaml
from tiny_models import AllSites, randomise
from tiny_owsm_ctc import ENCODER, LETTERS, MODEL, TOKENS

import espnet_prune
from espnet_prune.budget import resolve
from espnet_prune.errors import ModelError
from espnet_prune.export.onnx import export_onnx
from espnet_prune.export.recogniser import OnnxRecogniser
from espnet_prune.methods import make_method
from espnet_prune.models.espnet.build import build_model
from espnet_prune.models.espnet.choices import register
from espnet_prune.models.espnet.features import encoded_speech, random_outputs
from espnet_prune.models.espnet.folder import write_espnet_folder
from espnet_prune.models.espnet.prompt import prompt_tokens
from espnet_prune.models.origins import open_origin
from espnet_prune.sites import count_parameters
from espnet_prune.surgery import cut, inject, plan_of

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
SAMPLES = 16000
PROCESSING = ("preprocessor", "preprocessor_conf")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return randomise(build_model(MODEL, "s2t_ctc")).eval()


def batch() -> dict[str, torch.Tensor]:
    """Two utterances that are told a language and a text, the second ones shorter."""
    generator = torch.Generator().manual_seed(5)
    english, recognise = TOKENS.index("<eng>"), TOKENS.index("<asr>")
    return {
        "speech": torch.randn(2, SAMPLES, generator=generator),
        "speech_lengths": torch.tensor([SAMPLES, SAMPLES * 3 // 4]),
        "text_prev": torch.tensor([[6, 7, 8, 9], [7, 8, -1, -1]]),
        "text_prev_lengths": torch.tensor([4, 2]),
        "prefix": torch.tensor([[english, recognise]] * 2),
        "prefix_lengths": torch.tensor([2, 2]),
    }


@torch.no_grad()
def streams(model: torch.nn.Module) -> list[torch.Tensor]:
    """Its encoder's output and what each intermediate CTC hears, (B, T, D)."""
    (output, heard), _ = model.encode(**batch())
    return [output, *(stream for _, stream in heard)]


def pruned(model: torch.nn.Module):
    """The model with half of its units masked, and the same cut."""
    method = make_method("magnitude", target=0.5, updates=4)
    gated = inject(model, method).eval()
    masks = resolve(gated.site_map, method.masks(gated))
    for name in gated.gate_names():
        gated.gate(name).set(masks[name])
    return gated, cut(gated, masks).eval()


@torch.no_grad()
def test_it_is_cut_saved_and_loaded_as_a_whole(model, tmp_path):
    dense = streams(model)
    opened = inject(copy.deepcopy(model), AllSites(learned=False)).eval()
    assert all(map(torch.equal, streams(opened.model), dense))
    gated, small = pruned(model)
    for masked, after in zip(streams(gated.model), streams(small), strict=True):
        assert torch.allclose(masked, after, atol=1e-5)
    assert count_parameters(small.encoder) < 0.6 * count_parameters(model.encoder)
    assert count_parameters(small.prompt_encoder) == count_parameters(model.prompt_encoder)
    loaded = espnet_prune.load(espnet_prune.save(small, tmp_path / "small"))
    assert type(loaded).__name__ == "ESPnetS2TCTCModel"
    assert loaded.encoder.interctc_layer_idx == small.encoder.interctc_layer_idx
    assert all(map(torch.equal, streams(loaded), streams(small)))
    assert torch.equal(random_outputs(loaded, 1.0, False), random_outputs(small, 1.0, False))
    assert plan_of(loaded) == plan_of(small)


def labelled() -> dict[str, torch.Tensor]:
    """The same with the labels of its losses."""
    texts = {"text": [[4, 5, 7, 8], [4, 5, 9, -1]], "text_ctc": [[7, 8, 9, 6], [8, -1, -1, -1]]}
    lengths = {"text_lengths": [4, 3], "text_ctc_lengths": [4, 1]}
    return batch() | {name: torch.tensor(value) for name, value in {**texts, **lengths}.items()}


def test_units_are_chosen_by_gradients_of_its_own_loss(model):
    method = make_method("fisher", target=0.3)
    gated = inject(model, method).eval()
    small = cut(gated, method.masks(gated, [lambda: gated(**labelled())[0]]))
    assert count_parameters(small.encoder) < 0.8 * count_parameters(model.encoder)


@pytest.mark.parametrize(
    ("method", "named"),
    [
        ("flexigpt", "flexigpt: block 0 has no cross_attn.linear_k, which another has.*choose an"),
        ("obs_weights", "blocks EBranchformerEncoderLayer don't simply follow each other"),
    ],
)
def test_methods_that_need_plain_stacks_of_blocks_are_refused(method, named, model):
    chosen = make_method(method, target=0.3)
    gated = inject(model, chosen).eval()
    passes = [lambda: gated(**labelled())[0]]
    with pytest.raises(ModelError, match=named):
        chosen.compensate(gated, chosen.masks(gated, passes), passes)


def test_a_decoder_that_is_not_there_is_named(model):
    with pytest.raises(ModelError, match="decoder: the model has no decoder"):
        inject(model, make_method("magnitude", {"decoder": {}}, target=0.5, updates=4))


def test_the_cut_model_is_trained_on(model):
    _, small = pruned(model)
    loss, stats, _ = small.train()(**labelled())
    loss.backward()
    assert torch.isfinite(loss)
    assert {"loss_interctc_layer2", "loss_interctc_layer3"} <= set(stats)
    attention = small.encoder.encoders[2].cross_attn
    assert attention.linear_k.weight.grad.abs().max() > 0


def test_stock_espnet_decodes_the_cut_model_to_the_same_text(model, tmp_path):
    small = espnet_prune.load(espnet_prune.save(talkative(pruned(model)[1]), tmp_path / "small"))
    folder = write_espnet_folder(small, tmp_path / "espnet")
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert {key: written[key] for key in PROCESSING} == {key: MODEL[key] for key in PROCESSING}
    register("s2t_ctc")
    from espnet2.bin.s2t_inference import Speech2Text

    config, weights = str(folder / "config.yaml"), str(folder / "model.pth")
    stock = Speech2Text(config, weights, lang_sym="<nolang>", beam_size=2)
    speech = batch()["speech"][0]
    none = [TOKENS.index("<na>")]  # which characters alone don't spell
    (text, _, ids, _, _), *_ = stock.best_path(speech, text_prev=none)
    with torch.no_grad():
        told = prompt_tokens(small, 1)
        (encoded, _), _ = small.encode(speech[None], torch.tensor([SAMPLES]), **told)
        best = torch.unique_consecutive(small.ctc.argmax(encoded)[0]).tolist()
    assert ids == [i for i in best if i != small.blank_id]
    assert len(set(ids)) > 2
    assert text == "".join(TOKENS[i] for i in ids)


@torch.no_grad()
def talkative(model: torch.nn.Module) -> torch.nn.Module:
    """The model, whose CTC finds several tokens the best, letters and special ones."""
    output = model.ctc.ctc_lo
    output.weight.copy_(output.weight.roll(2, dims=0))  # else these are special ones alone
    output.bias.copy_(-output.weight @ streams(model)[0].mean(dim=(0, 1)))
    return model


@torch.no_grad()
def test_the_graph_gives_what_torch_gives_and_text_without_special_tokens(model, tmp_path):
    small = talkative(pruned(model)[1])
    assert max(export_onnx(small, tmp_path / "onnx").values()) < 1e-4
    recogniser = OnnxRecogniser(tmp_path / "onnx")
    samples = (numpy.random.default_rng(2).normal(size=SAMPLES) * 3000).astype(numpy.int16)
    speech = (samples / 32768).astype(numpy.float32)
    encoded = encoded_speech(small, torch.from_numpy(speech)[None])
    found = recogniser.log_probs(speech)
    numpy.testing.assert_allclose(found, small.ctc.log_softmax(encoded)[0], atol=1e-4)
    best = torch.unique_consecutive(small.ctc.argmax(encoded)[0]).tolist()
    said = [TOKENS[i] for i in best if TOKENS[i] in LETTERS]
    assert len(said) < len(best) and said
    assert recogniser.transcribe(samples) == "".join(said).replace("<space>", " ").strip()


@torch.no_grad()
def test_a_model_that_hears_nothing_is_exported_with_what_it_is_told(model, tmp_path):
    gated = inject(model, AllSites(learned=False)).eval()
    masks = {name: torch.ones(site.units) for name, site in gated.site_map.sites.items()}
    masks["front_end.2"].zero_()
    small = cut(gated, resolve(gated.site_map, masks)).eval()
    assert max(export_onnx(small, tmp_path / "onnx").values()) < 1e-4


def espnet_folder(trained: torch.nn.Module, folder, **changed):
    """An experiment's folder as ESPnet's training leaves it."""
    config = {**MODEL, "best_model_criterion": [["valid", "cer_ctc", "min"]], **changed}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(trained.state_dict(), folder / "valid.cer_ctc.ave.pth")
    return folder


def test_what_espnet_left_of_it_is_loaded(model, tmp_path):
    loaded = espnet_prune.load(espnet_folder(model, tmp_path))
    assert all(map(torch.equal, streams(loaded), streams(model)))
    names = inject(loaded, AllSites(learned=False)).gate_names()
    assert "block.2.cross_attention.heads" in names


def test_what_the_hub_has_of_it_is_loaded(model, tmp_path):
    espnet_folder(model, tmp_path)
    files = {"s2t_model_file": "valid.cer_ctc.ave.pth"}
    meta = {"files": files, "yaml_files": {"s2t_train_config": "config.yaml"}}
    (tmp_path / "meta.yaml").write_text(yaml.safe_dump(meta))
    assert all(map(torch.equal, streams(espnet_prune.load(tmp_path)), streams(model)))


def test_it_is_no_recipe_s_teacher(model, tmp_path):
    with open_origin(str(espnet_folder(model, tmp_path))) as origin:
        with pytest.raises(ModelError, match="task s2t_ctc; recipes .*espnet_prune.load takes it"):
            origin.write_tokens(tmp_path)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": "espnet"}, "model: espnet can't be pruned with encoder: e_branchformer_ctc; kn"),
        (
            {"encoder": "e_branchformer", "encoder_conf": {}},
            "model: espnet_ctc can't be pruned with encoder: e_branchformer; known is .*: espnet$",
        ),
        (
            {"encoder_conf": {**ENCODER, "attention_layer_type": "fast_selfattn"}},
            "attention_layer_type: 'fast_selfattn' can't be pruned; known are rel_selfattn, self",
        ),
        (
            {"encoder_conf": {**ENCODER, "use_cross_attention": [1]}},
            "ESPnet can't build the model of this configuration",
        ),
        ({"preprocessor": "default"}, "ESPnet can't build the model of this configuration"),
        ({"promptencoder": "whisper"}, "ESPnet can't build the model of this configuration"),
        ({"token_type": "hugging_face"}, "token_type: hugging_face can't be imported"),
    ],
    ids=str,
)
def test_what_is_not_known_is_named(changed, named, model, tmp_path):
    with pytest.raises(ModelError, match=named):
        espnet_prune.load(espnet_folder(model, tmp_path, **changed))


def test_a_model_without_the_tokens_of_its_prompt_is_named():
    tokens = [token for token in TOKENS if token != "<nolang>"]
    model = build_model({**MODEL, "token_list": tokens}, "s2t_ctc")
    with pytest.raises(ModelError, match="token_list: <nolang> isn't there.*trained with"):
        random_outputs(model, 1.0, decoder=False)
