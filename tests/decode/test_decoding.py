"""Decoding: both modes of a tiny model of random weights, resumed, refused, cut."""

import itertools
import logging
import shutil
from dataclasses import replace

import numpy
import pytest
import soundfile
import torch
import yaml

from espnet_prune.cli import main
from espnet_prune.data.kaldi_dir import DataSet, read_map, write_data
from espnet_prune.data.parallel import Share
from espnet_prune.data.segments import split_at_pauses
from espnet_prune.data.tokens import make_tokens
from espnet_prune.decode import decoding
from espnet_prune.decode.decode_config import MODES, DecodeConfig
from espnet_prune.decode.decoding import decode
from espnet_prune.decode.recogniser import Recogniser
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.models.espnet.features import SAMPLE_RATE

TEXTS = ("YES NO", "IT'S A GO", "STOP", "NO NO YES", "GO A STOP")
LENGTHS = (9000, 100, 16000, 12000, 700, 8000, 14000, 9500, 11000, 13000)  # two are too short
CONFIG = DecodeConfig(beam_size=2, maxlenratio=-4.0)  # four tokens at most


def write_model(folder, seed: int = 0, **settings):
    """Writes a model of random weights, BPE tokens; returns it."""
    from espnet_prune.models.espnet.build import build_asr_model
    from espnet_prune.models.espnet.folder import write_espnet_folder

    text = folder / "text"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("".join(f"u{i} {t}\n" for i, t in enumerate(TEXTS)))
    encoder = dict(output_size=16, attention_heads=2, linear_units=24, num_blocks=2)
    encoder |= dict(macaron_style=True, rel_pos_type="latest", cnn_module_kernel=5)
    config = dict(
        token_list=make_tokens(text, folder / "tokens", "bpe", 16),
        token_type="bpe",
        bpemodel=str(folder / "tokens" / "bpe.model"),
        frontend_conf=dict(n_mels=20),
        normalize="global_mvn",
        encoder="conformer",
        encoder_conf=encoder,
        decoder="transformer",
        decoder_conf=dict(attention_heads=2, linear_units=16, num_blocks=1),
        **settings,
    )
    torch.manual_seed(seed)
    model = build_asr_model(config).eval()
    torch.nn.init.normal_(model.ctc.ctc_lo.weight, 0.0, 3.0)  # so that texts aren't all blank
    write_espnet_folder(model, folder / "espnet")
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a model."""
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder of noise."""
    folder = tmp_path_factory.mktemp("data")
    generator = numpy.random.default_rng(0)
    recordings = {}
    for index, length in enumerate(LENGTHS):
        path = folder / f"u{index}.flac"
        samples = generator.normal(0, 3000, length).astype(numpy.int16)
        soundfile.write(path, samples, SAMPLE_RATE)
        recordings[f"u{index}"] = str(path)
    write_data(
        folder, DataSet(recordings, dict.fromkeys(recordings, "YES"), {u: "s" for u in recordings})
    )
    return folder


@pytest.fixture(scope="module")
def decoded(model, data, tmp_path_factory):
    """What an unbroken decoding leaves."""
    out = tmp_path_factory.mktemp("decoded")
    decode(model, data, CONFIG, out)
    return out


@pytest.fixture
def out(decoded, tmp_path):
    """A copy of it to change."""
    return shutil.copytree(decoded, tmp_path / "out")


def hypotheses(out, mode: str) -> dict[str, str]:
    return read_map(out / mode / "hyp", empty_values=True)


def test_every_utterance_has_a_line_in_order(decoded):
    for mode in ("greedy", "joint"):
        texts = hypotheses(decoded, mode)
        assert list(texts) == [f"u{i}" for i in range(len(LENGTHS))]
        assert any(texts.values())
        assert not (decoded / mode / "parts").exists()


def test_greedy_is_the_collapsed_argmax_of_ctc(model, data, decoded):
    import sentencepiece

    from espnet_prune.models.espnet.build import load_trained

    asr = load_trained(model / "espnet/config.yaml", model / "espnet/model.pth")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model / "tokens/bpe.model"))
    for utterance, text in hypotheses(decoded, "greedy").items():
        samples, _ = soundfile.read(data / f"{utterance}.flac", dtype="float32")
        if len(samples) <= 700:
            assert text == ""
            continue
        with torch.no_grad():
            encoded, _ = asr.encode(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
            best = asr.ctc.log_softmax(encoded)[0].argmax(-1).tolist()
        ids = [i for i, _ in itertools.groupby(best) if i not in (0, len(asr.token_list) - 1)]
        expected = pieces.decode_pieces([asr.token_list[i] for i in ids])
        assert text == " ".join(expected.split())


def test_joint_is_stock_espnet(model, data, decoded):
    from espnet2.bin.asr_inference import Speech2Text

    stock = Speech2Text(
        str(model / "espnet/config.yaml"),
        str(model / "espnet/model.pth"),
        beam_size=CONFIG.beam_size,
        ctc_weight=CONFIG.ctc_weight,
        maxlenratio=CONFIG.maxlenratio,
    )
    for utterance in ("u0", "u3", "u9"):
        samples, _ = soundfile.read(data / f"{utterance}.flac", dtype="float32")
        text = stock(samples)[0][0]
        assert hypotheses(decoded, "joint")[utterance] == " ".join(text.split())


def test_ctc_prefix_is_the_search_over_the_outputs_of_ctc(model, data, tmp_path):
    from espnet_prune.decode.prefix_search import prefix_search

    config = replace(CONFIG, modes=("ctc_prefix",))
    decode(model, data, config, tmp_path)
    modes = [path.name for path in tmp_path.iterdir() if path.is_dir()]
    assert modes == ["ctc_prefix"]  # only what was asked for
    recogniser = Recogniser(model, config)
    search, asr = recogniser.search, recogniser.model
    texts = hypotheses(tmp_path, "ctc_prefix")
    assert list(texts) == [f"u{i}" for i in range(len(LENGTHS))]
    for utterance in ("u0", "u3", "u9"):
        samples, _ = soundfile.read(data / f"{utterance}.flac", dtype="float32")
        with torch.no_grad():
            encoded, _ = asr.encode(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
            outputs = asr.ctc.log_softmax(encoded)[0]
        ids, _ = prefix_search(outputs, 0, 2, never=(asr.eos,), maxlenratio=-4.0)
        text = search.tokenizer.tokens2text(search.converter.ids2tokens(ids))
        assert texts[utterance] == " ".join(text.split()) != ""


def test_a_model_without_a_decoder_is_searched_by_ctc_and_refused_by_joint(tmp_path):
    write_model(tmp_path, model_conf=dict(ctc_weight=1.0))
    recogniser = Recogniser(tmp_path, CONFIG)
    assert recogniser.model.decoder is None
    samples = numpy.random.default_rng(1).normal(0, 3000, 9000).astype(numpy.int16)
    assert recogniser.transcribe(samples, "ctc_prefix")
    with pytest.raises(ModelError, match="no decoder.*ctc_prefix"):
        recogniser.transcribe(samples, "joint")


def test_a_prefix_search_depends_on_its_beam_but_not_on_the_joint_searchs_weight(
    model, data, tmp_path, monkeypatch
):
    config = replace(CONFIG, modes=("ctc_prefix",))
    decode(model, data, config, tmp_path)
    with pytest.raises(ConfigError, match="beam_size: 2 -> 3"):
        decode(model, data, replace(config, beam_size=3), tmp_path)
    monkeypatch.setattr(decoding, "open_recogniser", None)
    decode(model, data, replace(config, ctc_weight=0.9), tmp_path)


def test_tokens_become_the_same_words_again(model):
    search = Recogniser(model, CONFIG).search
    for text in TEXTS:
        ids = search.converter.tokens2ids(search.tokenizer.text2tokens(text))
        assert search.tokenizer.tokens2text(search.converter.ids2tokens(ids)) == text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("samples", [1, 256, 257, 700])
def test_too_short_gives_an_empty_text_and_a_warning(model, mode, samples, caplog):
    recogniser = Recogniser(model, CONFIG)
    with caplog.at_level(logging.WARNING, "espnet_prune"):
        assert recogniser.transcribe(numpy.zeros(samples, numpy.int16), mode, "u7") == ""
    assert "utterance 'u7'" in caplog.text and str(samples) in caplog.text


def test_a_long_recording_is_decoded_in_pieces(model):
    samples = numpy.random.default_rng(3).normal(0, 3000, 40000).astype(numpy.int16)
    samples[15000:20000] = 0  # the pause nearest to the end of the first 1.2 s
    recogniser = Recogniser(model, replace(CONFIG, segment_seconds=1.2))
    whole = Recogniser(model, CONFIG)
    pieces = split_at_pauses(samples, SAMPLE_RATE, 1.2)
    assert len(pieces) == 3
    for mode in ("greedy", "joint"):
        texts = [whole.transcribe(piece, mode) for piece in pieces]
        assert recogniser.transcribe(samples, mode) == " ".join(filter(None, texts))
        assert recogniser.transcribe(samples, mode) != whole.transcribe(samples, mode)


def test_a_broken_decoding_goes_on_to_the_same_result(model, data, decoded, tmp_path, monkeypatch):
    transcribe = Recogniser.transcribe
    monkeypatch.setattr(decoding, "PART_UTTERANCES", 3)
    limit = iter([None] * 7)

    def stop_after_seven(self, samples, mode, name=""):
        if next(limit, "end") == "end":
            raise RuntimeError("killed")
        return transcribe(self, samples, mode, name)

    monkeypatch.setattr(Recogniser, "transcribe", stop_after_seven)
    with pytest.raises(RuntimeError, match="killed"):
        decode(model, data, CONFIG, tmp_path)
    assert not list(tmp_path.glob("*/hyp"))
    names = []

    def count(self, samples, mode, name=""):
        names.append((mode, name))
        return transcribe(self, samples, mode, name)

    monkeypatch.setattr(Recogniser, "transcribe", count)
    decode(model, data, CONFIG, tmp_path)
    assert len(names) == 2 * len(LENGTHS) - 6  # two parts of three were written before
    for mode in ("greedy", "joint"):
        assert (tmp_path / mode / "hyp").read_bytes() == (decoded / mode / "hyp").read_bytes()


def test_shares_are_decoded_apart_and_joined_by_the_call_without_one(
    model, data, decoded, tmp_path, monkeypatch
):
    monkeypatch.setattr(decoding, "PART_UTTERANCES", 3)
    for index in (3, 1, 2, 5, 4):  # in any order; of four parts a mode, the fifth gets none
        decode(model, data, CONFIG, tmp_path, share=Share(index, 5))
        assert not list(tmp_path.glob("*/hyp"))
        parts = {path.name for path in tmp_path.glob("*/parts/hyp.*")}
        assert f"hyp.{3 * (index - 1):08d}" in parts or index == 5
        assert index != 3 or len(parts) == 1
    monkeypatch.setattr(decoding, "open_recogniser", None)  # nothing is left to decode
    decode(model, data, CONFIG, tmp_path)
    for mode in ("greedy", "joint"):
        assert (tmp_path / mode / "hyp").read_bytes() == (decoded / mode / "hyp").read_bytes()


def test_what_a_share_left_out_is_decoded_before_joining(model, data, decoded, tmp_path):
    decode(model, data, CONFIG, tmp_path, share=Share(2, 2))
    decode(model, data, CONFIG, tmp_path)
    assert hypotheses(tmp_path, "joint") == hypotheses(decoded, "joint")


def test_parts_of_an_unfinished_other_search_are_not_kept(model, data, decoded, tmp_path):
    parts = tmp_path / "joint" / "parts"
    parts.mkdir(parents=True)
    (parts / "hyp.00000000").write_text("u0 FROM ANOTHER SEARCH\n")
    decode(model, data, CONFIG, tmp_path)
    assert hypotheses(tmp_path, "joint") == hypotheses(decoded, "joint")


def test_done_is_done(model, data, out, monkeypatch):
    monkeypatch.setattr(decoding, "open_recogniser", None)
    decode(model, data, CONFIG, out)


def test_another_search_is_refused_but_greedy_does_not_care(model, data, out):
    wider = DecodeConfig(beam_size=3, maxlenratio=-4.0)
    with pytest.raises(ConfigError, match="beam_size: 2 -> 3"):
        decode(model, data, wider, out)
    decode(model, data, DecodeConfig(modes=("greedy",), beam_size=3), out)


def test_another_model_in_the_same_folder_is_noticed(model, data, out, tmp_path):
    other = tmp_path / "other"
    write_model(other, seed=1)
    with pytest.raises(ConfigError, match="model"):
        decode(other, data, CONFIG, out)


@pytest.mark.slow
def test_two_processes_give_the_same(model, data, decoded, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "PART_UTTERANCES", 3)
    decode(model, data, CONFIG, tmp_path, jobs=2)
    for mode in ("greedy", "joint"):
        assert (tmp_path / mode / "hyp").read_bytes() == (decoded / mode / "hyp").read_bytes()


def test_a_cut_model_decodes_in_stock_espnet(tmp_path, data):
    from tiny_models import AllSites

    from espnet_prune.models.conformer.fast_encoder import as_espnet
    from espnet_prune.models.espnet.folder import write_espnet_folder
    from espnet_prune.surgery import cut, inject

    dense = write_model(tmp_path / "dense")
    gated = inject(dense, AllSites(learned=False)).eval()
    for name in gated.gate_names():
        mask = torch.ones(gated.site_map.sites[name].units)
        mask[1::2] = 0.0
        gated.gate(name).set(mask)
    small = cut(gated)
    write_espnet_folder(small, tmp_path / "small" / "espnet")
    recogniser = Recogniser(tmp_path / "small", CONFIG)
    kept = [sum(p.numel() for p in m.parameters()) for m in (dense, small, recogniser.model)]
    assert kept[0] > kept[1] == kept[2]
    samples, _ = soundfile.read(data / "u2.flac", dtype="int16")
    speech = torch.from_numpy(samples.astype(numpy.float32))[None] / 32768
    lengths = torch.tensor([len(samples)])
    with torch.no_grad():
        outputs = [m.encode(speech, lengths)[0] for m in (small, recogniser.model)]
        with as_espnet(recogniser.model.encoder):
            stock = recogniser.model.encode(speech, lengths)[0]
    assert torch.equal(stock, outputs[0])
    assert torch.allclose(*outputs, atol=1e-5)
    recogniser.transcribe(samples, "joint")


def damaged(model, folder, change):
    """A copy of a model whose weights are changed."""
    shutil.copytree(model, folder)
    path = folder / "espnet" / "model.pth"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    return folder


def test_a_missing_weight_is_named(model, tmp_path):
    key = "encoder.after_norm.weight"
    folder = damaged(model, tmp_path / "model", lambda state: state.pop(key))
    with pytest.raises(ModelError, match=key):
        Recogniser(folder, CONFIG)


def test_weights_of_another_shape_and_a_damaged_file_are_refused(model, tmp_path):
    folder = damaged(
        model,
        tmp_path / "model",
        lambda state: state.update({"encoder.after_norm.weight": torch.ones(3)}),
    )
    with pytest.raises(ModelError, match="after_norm"):
        Recogniser(folder, CONFIG)
    (folder / "espnet" / "model.pth").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="damaged"):
        Recogniser(folder, CONFIG)


def test_a_missing_model_says_what_to_do(data, tmp_path):
    with pytest.raises(ModelError, match="no such file; run the stages"):
        decode(tmp_path, data, CONFIG, tmp_path / "out")


@pytest.mark.parametrize(
    "values, named",
    [
        ({"beam_sise": 4}, "did you mean 'beam_size'"),
        ({"beam_size": "ten"}, "int was expected"),
        ({"beam_size": 0}, "beam_size: 0 is out of range"),
        ({"ctc_weight": 1.5}, "ctc_weight: 1.5 is out of range"),
        ({"modes": ["gready"]}, "choose one of"),
        ({"modes": []}, "each once"),
        ({"modes": ["joint", "joint"]}, "each once"),
    ],
)
def test_wrong_settings_are_named(tmp_path, capsys, values, named):
    path = tmp_path / "decode.yaml"
    path.write_text(yaml.safe_dump(values))
    arguments = ["--model", "m", "--data", "d", "--config", str(path), "--out", str(tmp_path / "o")]
    assert main(["decode", *arguments]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_every_recipe_decodes_with_a_valid_configuration(repository):
    from espnet_prune.config import load_yaml, to_dataclass

    paths = sorted(repository.glob("egs/*/*/conf/decode.yaml"))
    assert paths
    for path in paths:
        to_dataclass(DecodeConfig, load_yaml(path), str(path))
