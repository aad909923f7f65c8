"""Profiles of tiny models on noise: counts are exact, of times only the form is tested."""

import itertools
import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy
import pytest
import soundfile
import torch
import yaml

from espnet_prune.budget import Budget
from espnet_prune.cli import main, run
from espnet_prune.config import dump_yaml, load_yaml, to_dataclass
from espnet_prune.data.kaldi_dir import DataSet, write_data
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.int8 import exported, stored_bytes
from espnet_prune.decode.recogniser import open_recogniser
from espnet_prune.errors import ConfigError, DataError, ModelError
from espnet_prune.io_atomic import write_json, write_text
from espnet_prune.methods import make_method
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.report.card import CardOptions, model_card
from espnet_prune.report.collect import collect
from espnet_prune.report.tables import markdown
from espnet_prune.score import timing
from espnet_prune.score.profile import encoder_macs, profile
from espnet_prune.score.timing import (
    LEAST_SECONDS,
    ProfileConfig,
    Rounds,
    interleaved,
    read_speech,
    spread,
    steadily,
)
from espnet_prune.sites import count_parameters
from espnet_prune.surgery import cut, inject, load
from espnet_prune.train.system import write_model

QUICK = ProfileConfig(
    reference_seconds=2.0,
    repeats=1,
    greedy_utterances=2,
    joint_utterances=1,
    joint_repeats=1,
    least_seconds=0.0,
    steady_within=100.0,
    beam_size=1,
)
SECONDS = (0.6, 0.2, 1.0, 0.8)  # of the recordings; one is too short to time
RATE = 16000


def asr_model(use_sdpa: bool = False, rate: int = RATE, **settings) -> torch.nn.Module:
    """A tiny ESPnet model of random weights."""
    torch.manual_seed(0)
    encoder = dict(output_size=16, attention_heads=2, linear_units=24, num_blocks=2)
    encoder |= dict(macaron_style=True, rel_pos_type="latest", cnn_module_kernel=5)
    config = dict(
        token_list=["<blank>", "<unk>", "A", "B", "<sos/eos>"],
        token_type="char",
        frontend_conf=dict(n_mels=20, hop_length=160, fs=rate),
        normalize="utterance_mvn",
        encoder="conformer",
        encoder_conf={**encoder, "use_sdpa": use_sdpa},
        decoder="transformer",
        decoder_conf=dict(attention_heads=2, linear_units=16, num_blocks=1),
    )
    return build_asr_model({**config, **settings}).eval()


@pytest.fixture(scope="module")
def gated():
    """Gates at half of the prunable parameters."""
    return inject(asr_model(), make_method("magnitude", target=0.5, seed=0, updates=1)).eval()


@pytest.fixture(scope="module")
def experiment(gated, tmp_path_factory):
    """A teacher and a cut system, not trained."""
    folder = tmp_path_factory.mktemp("experiment")
    write_model(asr_model(), folder / "teacher" / "model")
    masks = make_method("magnitude", target=0.5, seed=0, updates=1).masks(gated)
    write_model(cut(gated, masks), folder / "small" / "model")
    return folder


def write_noise(folder: Path, rate: int) -> Path:
    """A data folder of noise."""
    generator = numpy.random.default_rng(0)
    recordings = {}
    for index, seconds in enumerate(SECONDS):
        path = folder / f"u{index}.flac"
        samples = generator.normal(0, 3000, round(seconds * rate)).astype(numpy.int16)
        soundfile.write(path, samples, rate)
        recordings[f"u{index}"] = str(path)
    texts = dict.fromkeys(recordings, "AB")
    write_data(folder, DataSet(recordings, texts, dict.fromkeys(recordings, "s")))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("data"), RATE)


@pytest.fixture(scope="module")
def result(experiment, data):
    return profile(experiment / "small", experiment / "teacher", data, QUICK)


def test_sizes_and_macs_are_those_of_the_budget(gated, experiment, result):
    small, dense = (load(experiment / name / "model") for name in ("small", "teacher"))
    assert result["params"] == {
        "encoder": {
            "kept": count_parameters(small.encoder),
            "dense": count_parameters(dense.encoder),
        },
        "total": {"kept": count_parameters(small), "dense": count_parameters(dense)},
    }
    masks = make_method("magnitude", target=0.5, seed=0, updates=1).masks(gated)
    seconds = gated.site_map.reference_seconds
    macs = Budget(gated.site_map, gated.gate_names(), "macs")
    assert encoder_macs(dense, seconds) == macs.total
    assert encoder_macs(small, seconds) == macs.total - macs.prunable + macs.hard(masks)


def test_all_that_the_report_needs_is_there(result):
    modes = {"encoder", "encoder_espnet", "ctc_greedy", "joint"}
    assert set(result["rtf"]) == modes | {"threads", "batch"}
    assert all(result["rtf"][mode] > 0 and result["dense_rtf"][mode] > 0 for mode in modes)
    assert (result["rtf"]["threads"], result["rtf"]["batch"]) == (1, 1)
    speedup = result["speedup"]
    ratio = result["dense_macs_per_second"] / result["macs_per_second"]
    assert speedup["predicted"] == pytest.approx(ratio) and ratio > 1
    for mode in modes:
        assert speedup[mode] == pytest.approx(result["dense_rtf"][mode] / result["rtf"][mode])
    realised = speedup["encoder"] / speedup["predicted"]
    assert speedup["realised_over_predicted"] == pytest.approx(realised)
    assert set(result["machine"]) == {"cpu", "cores", "torch"}
    assert result["measured_seconds_of_speech"]["encoder"] == QUICK.reference_seconds
    json.dumps(result)


def test_the_teacher_beside_itself_costs_the_same(experiment, data):
    teacher = experiment / "teacher"
    itself = profile(teacher, teacher, data, QUICK)
    assert itself["speedup"]["predicted"] == 1.0
    assert itself["params"]["total"]["kept"] == itself["params"]["total"]["dense"]


def test_a_model_of_8_khz_is_timed_on_8_khz(tmp_path, data):
    write_model(asr_model(rate=8000), tmp_path / "model")
    measured = profile(tmp_path, tmp_path, write_noise(tmp_path, 8000), QUICK)
    assert measured["measured_seconds_of_speech"]["joint"] == SECONDS[0]
    with pytest.raises(DataError, match="16000"):
        profile(tmp_path, tmp_path, data, QUICK)


def test_fused_attention_is_counted_too_and_left_as_it_was():
    fused = asr_model(use_sdpa=True)
    assert encoder_macs(fused, 2.0) == encoder_macs(asr_model(), 2.0)
    assert all(layer.self_attn.use_sdpa for layer in fused.encoder.encoders)


def test_macs_grow_faster_than_the_utterance():
    model = asr_model()
    assert encoder_macs(model, 8.0) > 2 * encoder_macs(model, 4.0)  # attention is quadratic


def test_what_is_timed_is_spread_over_all_and_is_all_of_a_few():
    assert spread(range(7), 3) == [0, 2, 4] and spread("ab", 5) == ["a", "b"]


def test_actions_run_in_turn_after_a_warm_up():
    order = []
    interleaved([lambda: order.append("A"), lambda: order.append("B")], 2)
    assert order == ["A", "B"] * 3


def test_the_least_time_counts_and_short_actions_are_repeated():
    pauses = iter([0.0, 0.3, 0.01])
    assert 0.01 <= interleaved([lambda: time.sleep(next(pauses))], 2)[0] < 0.3
    runs = []
    interleaved([lambda: runs.append(time.sleep(0.001))], 1, least_seconds=0.05)
    assert len(runs) > 3


class Clock:
    """A clock that actions turn on, instead of the machine's."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing.time, "sleep", self.turn)

    def turn(self, seconds: float) -> None:
        self.now += seconds

    def action(self, *seconds: float):
        """Takes so long, one time after the other; the last for ever."""
        left = list(seconds)
        return lambda: self.turn(left.pop(0) if len(left) > 1 else left[0])


def test_rounds_that_the_machine_disturbed_do_not_count(monkeypatch):
    clock = Clock(monkeypatch)
    # a warm-up, then pairs before and after: disturbed, disturbed, and from then on quiet
    dense = clock.action(9.0, 1.0, 1.5, 2.0, 1.0, 1.0)
    small = clock.action(9.0, 0.125, 0.25, 0.5)
    assert steadily([dense, small], Rounds(2, 0.0, 0.0625)) == [1.0, 0.5]
    nearly = [clock.action(1.0, 1.0625, 1.0), clock.action(0.5)]
    assert steadily(nearly, Rounds(1, 0.0, 0.0625)) == [1.0, 0.5]


def test_a_machine_that_is_never_quiet_gives_no_time(monkeypatch):
    clock, runs = Clock(monkeypatch), []
    times = itertools.cycle([1.0, 1.1])
    dense = lambda: runs.append(clock.turn(next(times)))  # noqa: E731
    assert steadily([dense, clock.action(0.5)], Rounds(3, 0.0, 0.05)) is None
    assert len(runs) == 1 + 2 * timing.PATIENCE * 3
    slow = Rounds(1, 60.0, 0.05)
    begun = clock.now
    assert steadily([dense, clock.action(0.5)], slow) is None
    assert clock.now - begun >= timing.PATIENCE * 60.0, "short actions have as long as asked for"


def test_a_noisy_profile_is_said_and_measured_again(
    experiment, data, tmp_path, capsys, caplog, monkeypatch
):
    config = tmp_path / "profile.yaml"
    write_text(config, dump_yaml(asdict(QUICK)))
    experiment = shutil.copytree(experiment, tmp_path / "experiment")
    command = arguments(experiment, data, config)
    with monkeypatch.context() as busy:
        busy.setattr("espnet_prune.score.profile.steadily", lambda actions, rounds: None)
        assert run(["profile", *command]) == 0
    assert "encoder not told from noise" in capsys.readouterr().out
    assert "small: encoder, encoder_espnet, ctc_greedy, joint: the dense" in caplog.text
    result = json.loads((experiment / "small" / "profile.json").read_text())
    assert result["rtf"]["encoder"] is result["speedup"]["realised_over_predicted"] is None
    assert run(["profile", *command]) == 0
    assert "times as fast as dense" in capsys.readouterr().out


def test_recordings_too_short_to_time_are_left_out(data, tmp_path):
    assert [len(samples) / RATE for samples in read_speech(data, 99, RATE)] == [0.6, 1.0, 0.8]
    assert len(read_speech(data, 1, RATE)) == 1
    path = tmp_path / "u.flac"
    soundfile.write(path, numpy.ones(100, dtype=numpy.int16), RATE)
    write_data(tmp_path, DataSet({"u": str(path)}, {"u": "A"}, {"u": "s"}))
    with pytest.raises(DataError, match=f"{LEAST_SECONDS}"):
        read_speech(tmp_path, 1, RATE)


def arguments(experiment, data, config) -> list[str]:
    folders = ["--system", experiment / "small", "--teacher", experiment / "teacher"]
    return [*map(str, folders), "--config", str(config), "--data", str(data)]


def test_main_measures_once_and_again_if_the_model_changed(
    experiment, data, tmp_path, capsys, monkeypatch
):
    config = tmp_path / "profile.yaml"
    values = {f: getattr(QUICK, f) for f in QUICK.__dataclass_fields__}
    config.write_text(yaml.safe_dump(values))
    command = arguments(experiment, data, config)
    assert run(["profile", *command]) == 0
    assert "times as fast as dense" in capsys.readouterr().out
    first = (experiment / "small" / "profile.json").read_text()
    assert run(["profile", *command]) == 0
    assert (experiment / "small" / "profile.json").read_text() == first
    assert capsys.readouterr().out == ""
    weights = experiment / "small" / "model" / "espnet" / "model.pth"
    state = torch.load(weights, weights_only=True)
    state["ctc.ctc_lo.bias"] += 1
    torch.save(state, weights)
    monkeypatch.chdir(experiment / "small")
    assert run(["profile", *command, "--system", "."]) == 0
    assert (experiment / "small" / "profile.json").read_text() != first
    assert capsys.readouterr().out.startswith("small: encoder ")


@pytest.mark.parametrize("ctc_weight", [0.3, 0.0])
def test_a_transducer_is_timed_by_its_own_search_and_not_in_onnx(ctc_weight, data, tmp_path):
    """ONNX has its CTC alone, whose greedy search is another."""
    settings = dict(decoder="transducer", joint_net_conf={"joint_space_size": 8})
    settings |= dict(decoder_conf={"hidden_size": 6}, model_conf={"ctc_weight": ctc_weight})
    write_model(asr_model(**settings), tmp_path / "model")
    made = profile(tmp_path, tmp_path, data, replace(QUICK, int8=True))
    assert made["int8"]["onnx"] is made["int8"]["onnx_int8"] is None
    assert {"encoder", "ctc_greedy", "joint"} <= set(made["rtf"])
    assert set(made["int8"]["torch_int8"]["rtf"]) == {"encoder", "ctc_greedy", "joint"}
    with (
        pytest.raises(ModelError, match="no search of a transducer"),
        exported(tmp_path / "model", int8=True),
    ):
        pass


def test_a_model_without_ctc_is_measured_in_joint_decoding_alone(data, tmp_path, capsys):
    system = tmp_path / "teacher"
    write_model(asr_model(model_conf={"ctc_weight": 0.0}), system / "model")
    write_json(system / "system.json", {"schema": 1, "name": "teacher", "method": "teacher"})
    write_text(tmp_path / "profile.yaml", dump_yaml({**asdict(QUICK), "int8": True}))
    folders = ["--system", str(system), "--teacher", str(system), "--data", str(data)]
    assert run(["profile", *folders, "--config", str(tmp_path / "profile.yaml")]) == 0
    assert "greedy" not in capsys.readouterr().out
    result = json.loads((system / "profile.json").read_text())
    assert set(result["rtf"]) == {"encoder", "encoder_espnet", "joint", "threads", "batch"}
    assert set(result["int8"]["torch_int8"]["rtf"]) == {"encoder", "joint"}
    plain, small = (
        stored_bytes(open_recogniser(system / "model", DecodeConfig(), int8=int8).model)
        for int8 in (False, True)
    )
    assert result["int8"]["torch_int8"]["bytes"] == small != plain
    assert result["int8"]["onnx"] is result["int8"]["onnx_int8"] is None
    report = collect(tmp_path, "noise")
    text = markdown([report], "command")
    assert " | - | 0." in text, "no greedy decoding, but joint"
    (entry,) = report["systems"]
    assert "joint, torch int8" in model_card(entry, None, "conformer", CardOptions(), ())


def test_a_missing_model_and_a_wrong_key_are_clear(experiment, data, tmp_path, capsys):
    config = tmp_path / "profile.yaml"
    config.write_text("repeats: 1\n")
    command = arguments(experiment, data, config)
    command[1] = str(tmp_path / "nothing")
    assert main(["profile", *command]) == 2
    assert "nothing/model/espnet/config.yaml: no such file" in capsys.readouterr().err
    config.write_text("repeat: 1\n")
    assert main(["profile", *command]) == 2
    assert "'repeat' (did you mean 'repeats'?)" in capsys.readouterr().err


def test_the_shared_defaults_are_a_configuration(repository):
    path = repository / "conf" / "profile.yaml"
    assert to_dataclass(ProfileConfig, load_yaml(path), str(path)) == ProfileConfig()
    with pytest.raises(ConfigError, match="repeats"):
        replace(QUICK, repeats=0)
