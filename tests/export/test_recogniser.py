"""From a model's folder to ONNX to words, by the commands a user types."""

import io
import re
import shutil
import subprocess
import sys

import numpy
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espnet_prune.cli import main
from espnet_prune.data.tokens import make_tokens
from espnet_prune.errors import ModelError
from espnet_prune.export import onnx
from espnet_prune.export.folder import GRAPH, TOKENS, read_description, read_tokens
from espnet_prune.export.int8 import quantise
from espnet_prune.export.recogniser import OnnxRecogniser, Word, collapse
from espnet_prune.models.espnet.encoder_graphs import describe

pytestmark = pytest.mark.timeout(300)
RATE = 16000
TEXTS = ("YES NO", "IT'S A GO", "STOP", "NO NO YES", "GO A STOP")


def speech(seconds: float, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).normal(0, 3000, int(seconds * RATE)).astype(numpy.int16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a tiny model of random weights with BPE tokens and global_mvn."""
    from espnet_prune.models.espnet.build import build_asr_model
    from espnet_prune.train.system import write_model

    folder = tmp_path_factory.mktemp("model")
    (folder / "text").write_text("".join(f"u{i} {t}\n" for i, t in enumerate(TEXTS)))
    torch.manual_seed(0)
    asr = build_asr_model(
        {
            "token_list": make_tokens(folder / "text", folder / "tokens", "bpe", 16),
            "token_type": "bpe",
            "bpemodel": str(folder / "tokens/bpe.model"),
            "frontend_conf": {"n_mels": 20, "hop_length": 160, "win_length": 400},
            "normalize": "global_mvn",
            "encoder": "conformer",
            "encoder_conf": {
                "output_size": 16,
                "attention_heads": 2,
                "linear_units": 24,
                "num_blocks": 2,
                "macaron_style": True,
                "rel_pos_type": "latest",
                "cnn_module_kernel": 5,
            },
            "decoder": "transformer",
            "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
        }
    ).eval()
    torch.nn.init.normal_(asr.ctc.ctc_lo.weight, 0.0, 3.0)  # so that texts aren't all blank
    asr.normalize.mean.uniform_(-3, 3)
    asr.normalize.std.uniform_(0.5, 2)
    write_model(asr, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "exported"
    assert main(["export_onnx", "--model", str(model), "--out", str(folder)]) == 0
    return folder


def test_words_are_those_of_the_model_itself(model, exported):
    from espnet_prune.decode.decode_config import DecodeConfig
    from espnet_prune.decode.recogniser import Recogniser

    ours = OnnxRecogniser(exported, segment_seconds=2.0)
    theirs = Recogniser(model, DecodeConfig(segment_seconds=2.0))
    for seconds in (0.5, 1.3, 5.0):  # the last one in pieces
        samples = speech(seconds, seed=int(10 * seconds))
        assert ours.transcribe(samples) == theirs.transcribe(samples, "greedy") != ""


def test_recordings_of_every_length_have_the_same_text_as_in_torch(model, exported):
    from espnet_prune.decode.decode_config import DecodeConfig
    from espnet_prune.decode.recogniser import Recogniser, ctc_log_probs
    from espnet_prune.models.espnet.features import least_samples

    ours, theirs = OnnxRecogniser(exported), Recogniser(model, DecodeConfig())
    least = least_samples(theirs.model)
    assert ours.about["least_samples"] == least == 960
    texts = set()
    for samples in (*range(least - 2, least + 3), 1599, 1600, 1601, 2000, 2559, 2560, 2561, 3777):
        noise = speech(1.0, seed=samples)[:samples]
        texts.add(ours.transcribe(noise))
        assert ours.transcribe(noise) == theirs.transcribe(noise, "greedy")
        if samples >= least:
            values = noise.astype(numpy.float32) / 32768
            expected = ctc_log_probs(theirs.model, values)
            numpy.testing.assert_allclose(ours.log_probs(values), expected, atol=1e-4)
    assert len(texts) > 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, 17), max_size=20))
def test_any_path_has_the_same_text_as_in_torch(both, path):
    ours, theirs = both
    best = numpy.array(path, dtype=int)
    groups = ours._groups(collapse(best, ours.special))
    text = " ".join(ours._text(ids) for ids, _, _ in groups)
    assert text == " ".join(theirs.collapsed(torch.from_numpy(best)).split())


@pytest.fixture(scope="module")
def both(model, exported):
    """The exported model and the same in torch."""
    from espnet_prune.decode.decode_config import DecodeConfig
    from espnet_prune.decode.recogniser import Recogniser

    return OnnxRecogniser(exported), Recogniser(model, DecodeConfig())


def test_times_rise_and_lie_within_the_recording(exported):
    words = OnnxRecogniser(exported, segment_seconds=2.0).words(speech(5.0))
    assert len(words) > 3
    times = [t for word in words for t in (word.start, word.end)]
    assert times == sorted(times) and 0 <= times[0] and times[-1] <= 5.0
    assert words[-1].start > 2.0  # later pieces count from the beginning


@pytest.mark.parametrize("timestamps", [[], ["--timestamps"]])
def test_too_short_gives_no_words_and_a_warning(exported, tmp_path, capsys, caplog, timestamps):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(0.05)[:900], RATE)
    assert main(["transcribe", "--onnx", str(exported), *timestamps, str(path)]) == 0
    assert capsys.readouterr().out == ("" if timestamps else f"{path}\t\n")
    (warning,) = (r.getMessage() for r in caplog.records if r.levelname == "WARNING")
    assert f"utterance '{path}': 800 samples are too short to decode" in warning
    assert "its text is empty" in warning and "the model needs 960" in warning


def test_int8_is_smaller_and_hears_the_same(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "int8")
    quantise(folder / GRAPH)
    assert (folder / GRAPH).stat().st_size < (exported / GRAPH).stat().st_size
    noise = speech(3.0).astype(numpy.float32) / 32768
    whole, small = (OnnxRecogniser(f).log_probs(noise) for f in (exported, folder))
    assert 0 < numpy.abs(whole - small).max()
    assert numpy.mean(whole.argmax(-1) == small.argmax(-1)) > 0.9


def test_int8_leaves_the_filter_bank_as_it_is(exported, tmp_path):
    from onnx import load, numpy_helper

    folder = shutil.copytree(exported, tmp_path / "int8")
    quantise(folder / GRAPH)
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in load(f / GRAPH).graph.initializer}
        for f in (exported, folder)
    )
    for name in ("features.kernel", "features.mel"):
        assert numpy.array_equal(after[name], before[name])
    integers = [name for name, value in after.items() if value.dtype in ("int8", "uint8")]
    assert len(integers) > 20 and not [name for name in integers if name.startswith("features")]


def test_int8_by_the_command(model, exported, tmp_path, monkeypatch, capsys):
    def export(*arguments):
        shutil.copyfile(exported / arguments[-1].name, arguments[-1])

    monkeypatch.setattr(onnx, "_export", export)
    folder = tmp_path / "int8"
    assert main(["export_onnx", "--model", str(model), "--out", str(folder), "--int8"]) == 0
    assert "then int8 changes an output by up to" in capsys.readouterr().out
    about = read_description(folder)
    assert len(about["int8_difference"]) == 7  # three lengths of each graph, and the shortest
    assert max(about["max_difference"].values()) < min(about["int8_difference"].values())
    assert not (folder / "int8").exists()


def test_collapse_keeps_first_frames_and_drops_blanks():
    best = numpy.array([0, 3, 3, 0, 3, 4, 4, 9])
    assert collapse(best, {0, 9}) == [(3, 1), (3, 4), (4, 5)]


def test_characters_and_words_are_grouped(exported):
    recogniser = OnnxRecogniser(exported)
    recogniser.pieces = None
    recogniser.tokens = ["<blank>", "<unk>", "<space>", "A", "B", "<sos/eos>"]
    recogniser.about = {**recogniser.about, "token_type": "char"}
    emitted = [(2, 0), (3, 1), (4, 2), (2, 4), (2, 5), (4, 7)]
    assert recogniser._groups(emitted) == [([3, 4], 1, 2), ([4], 7, 7)]
    recogniser.about = {**recogniser.about, "token_type": "word"}
    assert recogniser._groups([(3, 1), (4, 2)]) == [([3], 1, 1), ([4], 2, 2)]


def test_files_folders_lists_and_other_rates(exported, tmp_path, capsys, monkeypatch):
    (tmp_path / "set").mkdir()
    for name, rate in (("a.wav", RATE), ("b.flac", 8000)):
        soundfile.write(tmp_path / "set" / name, speech(1.0), rate)
    first, second = (str(tmp_path / "set" / name) for name in ("a.wav", "b.flac"))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{second}\n\n"))
    arguments = ["--onnx", str(exported), first, str(tmp_path / "set"), "-"]
    assert main(["transcribe", *arguments]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [first, second]  # each once, though named twice
    assert lines[0][1]
    assert main(["transcribe", "--onnx", str(exported), "--timestamps", first]) == 0
    timed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[3] for line in timed] == lines[0][1].split()
    assert Word(timed[0][3], float(timed[0][1]), float(timed[0][2])).end > 0


def test_folders_in_a_list(exported, tmp_path, capsys, caplog, monkeypatch):
    for name in ("empty", "set"):
        (tmp_path / name).mkdir()
    paths = [str(tmp_path / "set" / name) for name in ("a.wav", "b.wav")]
    for path in paths:
        soundfile.write(path, speech(0.5), RATE)
    listed = [str(tmp_path / name) for name in ("empty", "none.wav", "set")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(listed)))
    assert main(["transcribe", "--onnx", str(exported), "-"]) == 2
    output = capsys.readouterr()
    assert [line.split("\t")[0] for line in output.out.splitlines()] == paths
    assert f"{listed[0]}: no recording in it" in caplog.text
    assert f"there is no file '{listed[1]}'" in caplog.text
    assert "2 of 4 recordings couldn't be read" in output.err


def test_channels_are_averaged_and_that_is_said_once(exported, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    left, right = speech(1.0, seed=1), speech(1.0, seed=2)
    mean = numpy.rint((left.astype(float) + right) / 2).astype(numpy.int16)
    soundfile.write(tmp_path / "mean.wav", mean, RATE)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, numpy.stack([left, right], axis=1), RATE)
    assert main(["transcribe", "--onnx", str(exported), str(tmp_path)]) == 0
    texts = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    assert len(texts) == 3 and len(set(texts)) == 1 and texts[0]
    (said,) = (r.getMessage() for r in caplog.records if "averaged" in r.getMessage())
    assert "a.wav': its 2 channels" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--onnx none", "none: there is no such folder; give a folder that `espnet-prune"),
        ("--onnx system", r"no model.json in it; .*did you mean --model \S*system/model\?"),
        ("--onnx system/model", r"no model.onnx in it; .*mean --model \S*system/model\?"),
        ("--onnx onnx/model.onnx", r"no such folder; .*mean --onnx \S*onnx\?"),
        ("--model system", r"model.json in it; .*mean --model \S*system/model\?"),
        ("--model system/models", r"no such folder; .*mean --model \S*system/model\?"),
        ("--model system/model/espnet", r"model.json in it; .*mean --model \S*system/model\?"),
        ("--model onnx", r"no model.safetensors in it; .*mean --onnx \S*onnx\?"),
    ],
)
def test_a_folder_beside_the_one_meant(model, exported, tmp_path, capsys, given, message):
    (tmp_path / "system").mkdir()
    (tmp_path / "system/model").symlink_to(model)
    (tmp_path / "onnx").symlink_to(exported)
    soundfile.write(tmp_path / "a.wav", speech(0.5), RATE)
    option, name = given.split()
    arguments = [option, str(tmp_path / name), str(tmp_path / "a.wav")]
    assert main(["transcribe", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {option} {tmp_path / name}: ") and "stage" not in error
    assert re.search(message, error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.wav"], "nowhere.wav: there is no such file"),
        (["empty"], "empty: no recording in it"),
    ],
)
def test_missing_input_is_named(exported, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["transcribe", "--onnx", str(exported), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_encoder_alone_has_no_words(tmp_path):
    (tmp_path / "model.json").write_text('{"schema": 1, "kind": "conformer_encoder"}')
    with pytest.raises(ModelError, match="kind 'conformer_encoder'.*export a whole model"):
        OnnxRecogniser(tmp_path)


def test_a_saved_model_gives_the_words_and_times_of_its_export(model, exported, tmp_path, capsys):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, speech(1.3), RATE)
    printed = []
    for option in (["--onnx", str(exported)], ["--model", str(model)]):
        assert main(["transcribe", *option, "--timestamps", path]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""


def test_a_damaged_recording_does_not_stop_the_others(exported, tmp_path, capsys, caplog):
    soundfile.write(tmp_path / "b.wav", speech(1.0), RATE)
    (tmp_path / "a.wav").write_bytes(b"no audio")
    assert main(["transcribe", "--onnx", str(exported), str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert [line.split("\t")[0] for line in output.out.splitlines()] == [str(tmp_path / "b.wav")]
    assert "a.wav" in caplog.text and "1 of 2 recordings couldn't be read" in output.err


@pytest.mark.parametrize(
    ("inputs", "message"),
    [(["-"], "no recording is listed on stdin"), (["-", "-"], "'-' is given twice")],
)
def test_lists_that_give_nothing(exported, monkeypatch, capsys, inputs, message):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["transcribe", "--onnx", str(exported), *inputs]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokens.txt", None, "tokens.txt: can't be read"),
        ("tokens.txt", b"<blank>\nA\n", r"2 tokens, but the graph has \d"),
        ("bpe.model", b"damaged", "can't be read as a sentencepiece model"),
        ("bpe.model", None, "can't be read as a sentencepiece model"),
        ("model.onnx", b"damaged", "ONNX Runtime can't read it"),
        ("model.json", b'{"schema": 2, "kind": "ctc_speech"}', "schema 2"),
        ("model.json", b'{"schema": 1, "kind": "ctc_speech"}', "sample_rate is None, expected int"),
        (
            "model.json",
            b'{"schema": 1, "kind": "ctc_speech", "sample_rate": 0}',
            "sample_rate is 0, expected at least 1",
        ),
        ("model.json", b"[]", "schema None"),
    ],
)
def test_a_damaged_folder_is_named(exported, tmp_path, name, content, message):
    folder = shutil.copytree(exported, tmp_path / "copy")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        OnnxRecogniser(folder)


def test_an_exported_folder_needs_neither_torch_nor_espnet(exported):
    code = (
        "import sys; from espnet_prune.export.recogniser import OnnxRecogniser; "
        f"OnnxRecogniser({str(exported)!r}); "
        "sys.exit(bool({'torch', 'espnet2', 'onnx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tokens_may_be_separators_of_lines(tmp_path):
    (tmp_path / TOKENS).write_text("<blank>\n\u2028\n\x85\nA\n", encoding="utf-8")
    assert read_tokens(tmp_path) == ["<blank>", "\u2028", "\x85", "A"]


def test_what_cannot_be_exported_is_refused_by_name(model, tmp_path):
    import espnet_prune
    from espnet_prune.export.onnx import export_onnx

    asr = espnet_prune.load(model)
    asr.espnet_prune_config["frontend_conf"]["fs"] = "8k"  # as ESPnet's options write it
    assert describe(asr)["sample_rate"] == 8000
    asr.normalize = torch.nn.Identity()
    with pytest.raises(ModelError, match="normalize: Identity; known .*UtteranceMVN"):
        export_onnx(asr, tmp_path / "onnx")
    asr.normalize = None
    asr.encoder.embed = torch.nn.Identity()
    with pytest.raises(ModelError, match="input_layer: Identity"):
        export_onnx(asr, tmp_path / "onnx")
    asr = espnet_prune.load(model)
    asr.ctc = None
    with pytest.raises(ModelError, match="has no CTC"):
        export_onnx(asr, tmp_path / "onnx")
