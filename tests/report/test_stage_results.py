"""Records that lack what a report reads, or have another kind of value there."""

import pytest
from made_up_experiment import edit, make_system

from espnet_prune.errors import DataError
from espnet_prune.report.card import _speed as _card_speed
from espnet_prune.report.collect import collect
from espnet_prune.report.headline import _speed
from espnet_prune.report.tables import markdown

SCORE = "decode/test/joint/score.json"
INT8 = {"bytes": 9, "rtf": {}, "speedup": {}}


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("profile.json", {"speedup": {"encoder": 1.4}}, "speedup lacks predicted"),
        ("profile.json", {"speedup": [1.4]}, r"speedup is \[1.4\], an object"),
        ("profile.json", {"rtf": {"encoder": 0.1}}, "rtf lacks threads, batch"),
        ("profile.json", {"rtf": {"threads": 1, "batch": 1, "joint": "x"}}, "rtf: joint is 'x'"),
        ("profile.json", {"macs_per_second": "many"}, "macs_per_second is 'many', not a number"),
        ("profile.json", {"machine": {"cpu": "x"}}, "machine lacks cores, torch"),
        ("profile.json", {"int8": {"torch_int8": INT8}}, "int8 lacks onnx, onnx_int8"),
        (SCORE, {"ci95": None}, "ci95 is None, two numbers"),
        (SCORE, {"ci95": [1.0]}, r"ci95 is \[1.0\], two numbers"),
        (SCORE, {"wer": None}, "wer is None, not a number"),
        (SCORE, {"p_vs": {"other": "x"}}, "p_vs: other is 'x'"),
        ("system.json", {"params": {"total": {"kept": 1, "dense": 2}}}, "params lacks encoder"),
        ("system.json", {"weights_bytes": {"kept": 1}}, "weights_bytes lacks dense"),
        ("system.json", {"train_seconds": {"prune": "long"}}, "prune is 'long', not a number"),
    ],
)
def test_what_a_record_lacks_is_named(tmp_path, name, values, said):
    make_system(tmp_path, "l0_50", "l0_distill")
    edit(tmp_path / "l0_50" / name, **values)
    with pytest.raises(DataError, match=f"{name}.*{said}.*run its stage again"):
        collect(tmp_path, "made_up")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("profile.json", {"macs_per_second": None, "rtf": None, "speedup": None}),
        ("system.json", {"params": None, "updates": None, "train_seconds": None}),
        ("profile.json", {"int8": {"torch_int8": INT8, "onnx": None, "onnx_int8": None}}),
        ("system.json", {"weights_bytes": None, "sparsity": None}),
    ],
)
def test_what_has_not_run_may_be_null(tmp_path, name, values):
    make_system(tmp_path, "l0_50", "l0_distill")
    edit(tmp_path / "l0_50" / name, **values)
    (system,) = collect(tmp_path, "made_up")["systems"]
    assert {key: system[key] for key in values} == values


def test_a_report_from_before_training_was_recorded_is_read(tmp_path):
    for seed in range(2):
        make_system(tmp_path, f"l0_50_seed{seed}", "l0_distill", seed)
    report = collect(tmp_path, "made_up")
    assert [system.pop("training") for system in report["systems"]] == [{}, {}]
    assert "2 seeds" in markdown([report], "command")


def test_a_time_that_other_work_blurred_is_printed_as_noisy_and_no_claim_is_made(tmp_path):
    make_system(tmp_path, "l0_50", "l0_distill")
    blurred = {"encoder": None, "predicted": 1.5, "joint": 1.1}
    rtf = {"encoder": None, "joint": 0.2, "threads": 1, "batch": 1}
    edit(tmp_path / "l0_50" / "profile.json", speedup=blurred, rtf=rtf)
    report = collect(tmp_path, "made_up")
    (row,) = [line for line in markdown([report], "command").splitlines() if "| 1.50 |" in line]
    assert "| 1.50 | noisy | noisy | noisy | - | 0.2000 (1.10x) |" in row
    (system,) = report["systems"]
    assert "times as fast" not in str(_speed(system))
    assert _card_speed(system)[1].count("\n") == 2, "a header and joint decoding alone"
