"""Transcribing with a saved model's folder: its rate, its parts, its place, and odd inputs."""

import io
import json
import shutil

import numpy
import pytest
import soundfile
import torch
from tiny_models import ENCODER

from espnet_prune.cli import main
from espnet_prune.data import audio_io
from espnet_prune.data.decode import Decoded
from espnet_prune.data.kaldi_dir import DataSet, read_map, write_data, write_map
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.decoding import decode
from espnet_prune.decode.recogniser import open_recogniser, rate_of
from espnet_prune.decode.saved import SavedRecogniser
from espnet_prune.errors import DataError, ModelError
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.models.espnet.features import least_samples
from espnet_prune.models.graph_names import TRAINED_SECONDS
from espnet_prune.surgery import load
from espnet_prune.train.system import write_model

pytestmark = pytest.mark.timeout(300)
RATE = 16000


def speech(seconds: float, rate: int = RATE) -> numpy.ndarray:
    return numpy.random.default_rng(3).normal(0, 3000, int(seconds * rate)).astype(numpy.int16)


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(1.0), RATE)
    return path


@pytest.fixture
def transcribe(capsys):
    """Runs the command; returns its status and the texts that it printed, times left out."""

    def run(*arguments):
        capsys.readouterr()
        status = main(["transcribe", *[str(argument) for argument in arguments]])
        lines = capsys.readouterr().out.splitlines()
        return status, " ".join(line.rpartition("\t")[2] for line in lines)

    return run


def rebuilt(system, **settings) -> torch.nn.Module:
    """The system's model, of a configuration with other settings and random weights."""
    config = load(system / "model").espnet_prune_config
    torch.manual_seed(0)
    return build_asr_model({**config, **settings}).eval()


@pytest.fixture
def telephone(system, tmp_path):
    """Folder of a model of 8 kHz."""
    model = load(system / "model")
    conf = {**model.espnet_prune_config["frontend_conf"], "fs": "8k"}
    model.espnet_prune_config["frontend_conf"] = conf
    write_model(model, tmp_path / "telephone")
    return tmp_path / "telephone"


def test_a_model_of_8_khz_gets_8_khz(telephone, recording, transcribe):
    recogniser = open_recogniser(telephone, DecodeConfig())
    assert rate_of(recogniser) == 8000
    found, _ = audio_io.read_speech(str(recording), 8000)
    text = recogniser.transcribe(found.samples, "greedy")
    assert transcribe("--model", telephone, "--mode", "greedy", recording) == (0, text) != (0, "")
    assert transcribe("--model", telephone, "--timestamps", recording) == (0, text)


def test_pieces_of_a_long_recording_are_cut_at_the_models_rate(telephone):
    pieces = open_recogniser(telephone, DecodeConfig(segment_seconds=2.0))
    whole = open_recogniser(telephone, DecodeConfig())
    samples = speech(1.9, rate=8000)  # 0.95 s, were it of 16 kHz
    long = numpy.concatenate([samples, samples])
    assert pieces.transcribe(samples, "greedy") == whole.transcribe(samples, "greedy")
    assert pieces.transcribe(long, "greedy") != whole.transcribe(long, "greedy")


def test_a_set_of_8_khz_is_decoded_by_its_model_alone(system, telephone, tmp_path):
    path = tmp_path / "u.wav"
    soundfile.write(path, speech(1.0, 8000), 8000)
    write_data(tmp_path / "data", DataSet({"u": str(path)}, {"u": "YES"}, {"u": "s"}))
    config = DecodeConfig(modes=("greedy",))
    decode(telephone, tmp_path / "data", config, tmp_path / "out")
    text = open_recogniser(telephone, config).transcribe(speech(1.0, 8000), "greedy")
    assert read_map(tmp_path / "out/greedy/hyp") == {"u": text}
    with pytest.raises(DataError, match="sampled at 8000 Hz, 16000 Hz was expected"):
        decode(system / "model", tmp_path / "data", config, tmp_path / "other")


def test_a_model_without_ctc_is_searched_by_its_decoder(system, tmp_path, recording, transcribe):
    model = rebuilt(system, model_conf={"ctc_weight": 0.0})
    assert model.ctc is None
    write_model(model, tmp_path / "model")
    config = DecodeConfig(beam_size=2, minlenratio=-3.0, maxlenratio=-4.0)  # in tokens
    recogniser = open_recogniser(tmp_path / "model", config)
    assert recogniser.modes == ("joint",)
    assert recogniser.transcribe(speech(1.0), "joint") != ""
    for mode in ("greedy", "ctc_prefix"):
        with pytest.raises(ModelError, match=rf"modes: {mode}: .*no CTC; give modes: \[joint\]"):
            recogniser.transcribe(speech(1.0), mode)
    arguments = "--model", tmp_path / "model", "--mode", "greedy", recording
    assert transcribe(*arguments) == (2, "")


def test_a_model_with_intermediate_ctc_is_read_at_its_last_layer(system, tmp_path):
    plain, model = (
        rebuilt(system, encoder="conformer", encoder_conf={**ENCODER, "interctc_layer_idx": layers})
        for layers in ([], [1])
    )
    torch.nn.init.normal_(plain.ctc.ctc_lo.weight, 0.0, 3.0)  # so that texts aren't all blank
    model.load_state_dict(plain.state_dict())
    for folder, each in ((tmp_path / "plain", plain), (tmp_path / "inter", model)):
        write_model(each, folder)
    theirs, found = (open_recogniser(tmp_path / n, DecodeConfig()) for n in ("plain", "inter"))
    for mode in ("greedy", "ctc_prefix"):
        assert found.transcribe(speech(1.0), mode) == theirs.transcribe(speech(1.0), mode) != ""
    samples = speech(1.0).astype(numpy.float32) / 32768
    expected, log_probs = (
        SavedRecogniser(tmp_path / n).log_probs(samples) for n in ("plain", "inter")
    )
    numpy.testing.assert_allclose(log_probs, expected, atol=1e-4)


@pytest.mark.parametrize("options", [[], ["--timestamps"]])
@pytest.mark.parametrize("kind", ["conformer_encoder", "transformers", None])
def test_a_folder_without_words_is_named(tmp_path, recording, capsys, kind, options):
    description = {"schema": 1, "kind": kind} if kind else []
    (tmp_path / "model.json").write_text(json.dumps(description))
    (tmp_path / "model.safetensors").write_text("")
    arguments = ["--model", str(tmp_path), *options, str(recording)]
    assert main(["transcribe", *arguments]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path}/model.json: kind {kind!r}, expected 'espnet_asr'" in error
    assert "give a system's model folder" in error


def test_a_moved_folder_or_one_without_stock_files_is_transcribed(
    system, recording, tmp_path, transcribe
):
    moved = shutil.copytree(system / "model", tmp_path / "moved")
    path = moved / "espnet/config.yaml"
    path.write_text(path.read_text().replace(str(system.resolve()), "/gone"))
    assert "/gone/" in path.read_text()
    before = transcribe("--model", system / "model", "--mode", "greedy", recording)
    assert transcribe("--model", moved, "--mode", "greedy", recording) == before
    path.unlink()
    assert transcribe("--model", moved, "--mode", "greedy", recording) == before
    assert before[0] == 0 and before[1]


def test_a_damaged_configuration_stops_the_command(system, recording, tmp_path, capsys):
    folder = shutil.copytree(system / "model", tmp_path / "copy")
    (folder / "espnet/config.yaml").write_text("a: [1,")
    arguments = ["--model", str(folder), "--mode", "greedy", str(recording)]
    assert main(["transcribe", *arguments]) == 2
    assert "config.yaml: can't be read as YAML" in capsys.readouterr().err
    with pytest.raises(DataError, match="can't be read as YAML"):
        open_recogniser(folder, DecodeConfig())


def test_times_need_no_longer_recording_than_texts(system):
    model = load(system / "model")
    least = least_samples(model)
    assert least == 6 * 160  # seven frames, as ESPnet's subsampling demands
    theirs, timed = (
        open_recogniser(system / "model", DecodeConfig()),
        SavedRecogniser(system / "model"),
    )
    for samples in (speech(1.0)[:least], speech(0.12)):
        assert len(timed.log_probs(samples.astype(numpy.float32))) >= 1
        assert timed.transcribe(samples) == theirs.transcribe(samples, "greedy")
    assert timed.transcribe(speech(0.12)) != ""
    assert timed.transcribe(speech(1.0)[: least - 1]) == ""


def test_a_folder_named_as_a_recording_is_none(system, recording, tmp_path, transcribe):
    (tmp_path / "b.wav").mkdir()
    model = system / "model"
    once = transcribe("--model", model, "--timestamps", recording)
    assert transcribe("--model", model, "--timestamps", tmp_path) == once
    assert once[0] == 0


def test_a_file_named_twice_is_transcribed_once(
    system, recording, tmp_path, transcribe, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(".\n./a.wav\na.wav\n"))  # as `find .` prints
    model = system / "model"
    once = transcribe("--model", model, "--timestamps", "a.wav")
    assert transcribe("--model", model, "--timestamps", "./a.wav", "-", ".") == once


def test_a_path_that_cannot_be_looked_up_does_not_stop_the_others(
    system, recording, tmp_path, transcribe, monkeypatch, caplog
):
    model, long = system / "model", tmp_path / (300 * "x")
    once = transcribe("--model", model, "--timestamps", recording)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{long}\n{recording}\n"))
    assert transcribe("--model", model, "--timestamps", "-") == (2, once[1])
    assert f"{long}: it can't be looked up (File name too long); correct" in caplog.text


def test_a_path_of_the_command_line_that_cannot_be_looked_up_is_named(system, tmp_path, capsys):
    long = str(tmp_path / (300 * "x"))
    assert main(["transcribe", "--model", str(system / "model"), long]) == 2
    assert f"error: {long}: it can't be looked up" in capsys.readouterr().err


def test_a_name_that_is_not_utf_8_is_read_and_printed_as_it_is(system, monkeypatch, capsysbinary):
    asked = []

    def read_speech(name, rate, channel):
        asked.append(name)
        return Decoded(speech(0.5), rate), 1

    monkeypatch.setattr(audio_io, "read_speech", read_speech)
    listed = io.TextIOWrapper(io.BytesIO(b"lat\xe9.wav\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", listed)
    arguments = ["--model", str(system / "model"), "--timestamps", "-"]
    assert main(["transcribe", *arguments]) == 0
    assert asked == ["lat\udce9.wav"]
    assert capsysbinary.readouterr().out.startswith(b"lat\xe9.wav\t")


def test_a_folder_s_other_files_are_named_and_odd_names_stay_on_their_line(
    system, recording, tmp_path, transcribe, caplog
):
    model = system / "model"
    _, text = transcribe("--model", model, "--mode", "greedy", recording)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b.aiff", "tab\tand\nbreak.flac"):
        soundfile.write(folder / name, soundfile.read(recording, dtype="int16")[0], 16000)
    (folder / "notes.txt").write_text("words")
    (folder / ".hidden.wav").write_text("")
    assert transcribe("--model", model, "--mode", "greedy", folder) == (0, f"{text} {text}")
    assert "1 files hold no recording: 'notes.txt'" in caplog.text
    assert "tab\\tand\\nbreak.flac: its name has a tab or line break" in caplog.text


def test_a_list_may_begin_with_a_byte_order_mark(system, recording, transcribe, monkeypatch):
    model = system / "model"
    once = transcribe("--model", model, "--mode", "greedy", recording)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"\ufeff{recording}\n"))
    assert transcribe("--model", model, "--mode", "greedy", "-") == once


@pytest.fixture
def of_short_utterances(system, tmp_path):
    """Folder of the system's model, as if trained on utterances of at most 1.2 s."""
    model = load(system / "model")
    model.espnet_prune_config[TRAINED_SECONDS] = 1.2
    write_model(model, tmp_path / "short/model")
    return tmp_path / "short/model"


@pytest.mark.parametrize("how", [("--mode", "greedy"), ("--timestamps",)])
def test_pieces_follow_what_the_model_was_trained_on(
    of_short_utterances, system, tmp_path, transcribe, caplog, how
):
    talk = tmp_path / "talk.wav"
    soundfile.write(talk, speech(4.0), RATE)
    text = transcribe("--model", of_short_utterances, *how, talk)
    assert text == transcribe("--model", system / "model", *how, "--segment_seconds", 1.2, talk)
    assert text != transcribe("--model", system / "model", *how, talk)
    assert "trained on utterances" not in caplog.text
    transcribe("--model", of_short_utterances, *how, "--segment_seconds", 4, talk)
    assert "trained on utterances of at most 1.2 s" in caplog.text


def test_an_export_keeps_what_the_model_was_trained_on(
    of_short_utterances, tmp_path, transcribe, caplog
):
    folder, talk = tmp_path / "onnx", tmp_path / "talk.wav"
    assert main(["export_onnx", "--model", str(of_short_utterances), "--out", str(folder)]) == 0
    soundfile.write(talk, speech(4.0), RATE)
    expected = transcribe("--model", of_short_utterances, "--mode", "greedy", talk)
    assert transcribe("--onnx", folder, talk) == expected
    transcribe("--onnx", folder, "--segment_seconds", 4, talk)
    assert "trained on utterances of at most 1.2 s" in caplog.text


def test_a_set_of_longer_utterances_is_told_of(of_short_utterances, tmp_path, caplog):
    path = tmp_path / "u.wav"
    soundfile.write(path, speech(4.0), RATE)
    write_data(tmp_path / "data", DataSet({"u": str(path)}, {"u": "YES"}, {"u": "s"}))
    write_map(tmp_path / "data/utt2num_samples", {"u": "64000"})
    config = DecodeConfig(modes=("greedy",))
    decode(of_short_utterances, tmp_path / "data", config, tmp_path / "out")
    said = "1 of 1 utterances have up to 4.0 s, the model was trained on at most 1.2 s"
    assert said in caplog.text
