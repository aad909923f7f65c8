"""Exports of wav2vec 2.0, HuBERT and Whisper, cut, and of decoders: torch's outputs and texts."""

import numpy
import pytest
import soundfile
import torch
from tiny_ssl import TRANSFORMER, letters_model
from tiny_whisper import whisper

from espnet_prune.cli import main, run
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.recogniser import open_recogniser
from espnet_prune.decode.saved import SavedRecogniser
from espnet_prune.errors import ModelError
from espnet_prune.export.exported import open_exported
from espnet_prune.export.folder import DECODER, GRAPH, read_description
from espnet_prune.export.onnx import export_onnx
from espnet_prune.export.session import open_session
from espnet_prune.methods import make_method
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.models.graphs import TOLERANCE
from espnet_prune.models.huggingface.build import from_config, generation_config
from espnet_prune.models.tokens import make_any_tokens
from espnet_prune.models.whisper.graphs import first_tokens
from espnet_prune.surgery import cut, inject, load, plan_of
from espnet_prune.train.system import write_model
from espnet_prune.train.training import token_options

pytestmark = pytest.mark.timeout(300)
RATE = 16000
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
SSL = {
    "Wav2Vec2Model": {},
    "HubertModel": LAYER_NORM,
    "WavLMModel": {},
    "Wav2Vec2ConformerModel": {"conv_depthwise_kernel_size": 5},
}


def speech(seconds: float, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).normal(0, 3000, int(seconds * RATE)).astype(numpy.int16)


def half_of(model):
    """A model cut to half by uniform magnitude."""
    method = make_method("uniform_magnitude", target=0.5, updates=4)
    gated = inject(model, method).eval()
    small = cut(gated, method.masks(gated)).eval()
    assert plan_of(small) is not None
    return small


@pytest.fixture(scope="module", params=SSL, ids=str)
def ssl(request, tmp_path_factory):
    """Folders of a cut wav2vec 2.0 model, or of one of its kin, with CTC, and of its export."""
    conf = {"model": {**TRANSFORMER, **SSL[request.param]}, "class_name": request.param}
    model = letters_model(conf)
    torch.nn.init.normal_(model.ctc.ctc_lo.weight, 0.0, 3.0)  # so that texts aren't all blank
    folder = tmp_path_factory.mktemp("ssl")
    write_model(half_of(model), folder / "model")
    differences = export_onnx(load(folder / "model"), folder / "onnx")
    assert len(differences) == 3 and max(differences.values()) < TOLERANCE
    return folder / "model", folder / "onnx"


def test_ssl_texts_and_times_are_those_of_the_model(ssl):
    model, onnx = ssl
    theirs = open_recogniser(model, DecodeConfig(modes=("greedy",)))
    exported, saved = open_exported(onnx, timestamps=True), SavedRecogniser(model)
    for seconds in (0.3, 1.7):
        samples = speech(seconds)
        words = exported.words(samples)
        assert words == saved.words(samples) and 0 < words[-1].end <= seconds
        assert exported.transcribe(samples) == theirs.transcribe(samples, "greedy") != ""
    least = read_description(onnx)["least_samples"]
    assert len(exported.log_probs(numpy.ones(least, numpy.float32))) == 1  # one frame
    assert exported.words(speech(1.0)[: least - 1]) == []


@pytest.fixture(scope="module")
def whisper_model(tmp_path_factory):
    """Folders of a cut Whisper of a recipe, and of its export."""
    folder = tmp_path_factory.mktemp("whisper")
    assert run(["get_whisper", "--whisper", "random", "--out", str(folder / "random")]) == 0
    (folder / "text").write_text("a SOME WORDS\n")
    make_any_tokens(folder / "text", folder / "tokens", "hugging_face", 30, str(folder / "random"))
    part = {"model": str(folder / "random")}
    special = {"sym_sos": "<|startoftranscript|>", "sym_eos": "<|endoftext|>"}
    model = build_asr_model(
        {
            "frontend": None,
            "input_size": 1,
            "normalize": None,
            "specaug": None,
            "encoder": "whisper_hf",
            "encoder_conf": part,
            "decoder": "whisper_hf",
            "decoder_conf": part,
            "model_conf": {"ctc_weight": 0.0, "lsm_weight": 0.0, **special},
            **token_options(folder / "tokens"),
        }
    ).eval()
    for layer in model.decoder.model.layers:  # so that transcripts depend on the recording
        layer.encoder_attn.out_proj.weight.data.mul_(30)
    write_model(half_of(model), folder / "model")
    differences = export_onnx(load(folder / "model"), folder / "onnx")
    assert [key.split()[0] for key in differences] == [GRAPH] * 3 + [DECODER] * 3
    return folder / "model", folder / "onnx"


def test_whisper_texts_are_those_of_generate(whisper_model, tmp_path, capsys):
    model, onnx = whisper_model
    theirs, exported = open_recogniser(model, DecodeConfig(modes=("greedy",))), open_exported(onnx)
    texts = {theirs.transcribe(speech(seconds), "greedy") for seconds in (0.5, 1.1)}
    assert {exported.transcribe(speech(seconds)) for seconds in (0.5, 1.1)} == texts
    assert len(texts) == 2 or "" not in texts
    long = speech(exported.segment_seconds + 0.4)  # in pieces
    assert exported.transcribe(long) == theirs.transcribe(long, "greedy")
    soundfile.write(tmp_path / "a.wav", speech(0.5), RATE)
    assert main(["transcribe", "--onnx", str(onnx), str(tmp_path)]) == 0
    assert capsys.readouterr().out.split("\t")[1].strip() in texts
    with pytest.raises(ModelError, match="this is a Whisper"):
        open_exported(onnx, timestamps=True)


def test_whisper_warns_of_a_recording_without_samples(whisper_model, caplog):
    assert open_exported(whisper_model[1]).transcribe(speech(0), "u7") == ""
    assert "utterance 'u7': no samples, its text is empty" in caplog.text


def test_suppressed_tokens_are_never_the_next(whisper_model):
    exported = open_exported(whisper_model[1])
    (encoded,) = exported.encoder.run(None, {"speech": numpy.zeros((1, 800), numpy.float32)})
    first = exported._search(encoded, 3)
    exported.about = {**exported.about, "suppressed_first": [first[0]]}
    assert exported._search(encoded, 3)[0] != first[0]
    exported.about = {**exported.about, "suppressed": list(set(first)), "suppressed_first": []}
    assert not set(exported._search(encoded, 3)) & set(first)


def test_what_a_transcript_begins_with():
    languages = {"lang_to_id": {"<|en|>": 7}, "task_to_id": {"transcribe": 8}}
    untimed = {"decoder_start_token_id": 5, "no_timestamps_token_id": 9}
    assert first_tokens(generation_config({**untimed, **languages}), True) == [5, 7, 8, 9]
    assert first_tokens(generation_config(untimed), False) == [5, 9]
    old = generation_config({**untimed, "forced_decoder_ids": [[1, 9]]})
    assert first_tokens(old, False) == [5, 9]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Wav2Vec2ForCTC", "HubertModel"])
def test_models_of_transformers_by_their_own_input(name, tmp_path):
    torch.manual_seed(0)
    model = half_of(from_config(name, {**TRANSFORMER, "vocab_size": 12}))
    export_onnx(model, tmp_path / "onnx")
    values = torch.randn(1, 5000)
    found = open_session(tmp_path / "onnx" / GRAPH).run(None, {"input_values": values.numpy()})[0]
    with torch.no_grad():
        assert numpy.abs(found - model(values)[0].numpy()).max() < TOLERANCE
    with pytest.raises(ModelError, match="kind 'transformers'"):
        open_exported(tmp_path / "onnx")


@pytest.mark.slow
def test_whisper_of_transformers_by_features(tmp_path):
    differences = export_onnx(half_of(whisper()), tmp_path / "onnx")
    assert len(differences) == 6 and max(differences.values()) < TOLERANCE


def test_other_models_are_named(tmp_path):
    with pytest.raises(ModelError, match="Linear: can.t be pruned; known are"):
        export_onnx(torch.nn.Linear(1, 1), tmp_path / "onnx")
