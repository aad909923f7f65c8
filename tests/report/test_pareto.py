"""Pareto fronts and plots from an experiment folder made up by the test."""

import itertools
import json
import shutil

import pytest
from made_up_experiment import edit, make_system

from espnet_prune.cli import run
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.report import pareto_plot
from espnet_prune.report.pareto import Curve, charts, curves_of, pareto_front, read_systems

RUN = {"ladder": [0.3]}
SHARED = {"system": "ladder_70", "seconds": 1.0, "updates": 4}
# parameters, WER, speed-up, updates of stage 8 and whether it is of the ladder's run
SYSTEMS = {
    "teacher": (1000, 5.0, 1.0, None),
    "ladder_30": (700, 5.5, 1.2, SHARED),
    "ladder_70": (300, 9.0, 2.0, None),
    "single_30": (700, 5.2, 1.3, None),
    "single_70": (300, 9.5, 1.9, None),
}


def leave_out(mode: str, experiment) -> None:
    """Half as much to draw."""
    for folder in experiment.glob(f"*/decode/test/{mode}"):
        shutil.rmtree(folder)


def decode_in_int8(experiment, modes=("greedy_int8", "joint_int8", "greedy_onnx_int8")) -> None:
    """Scores of these modes, and int8 times that nobody takes for those of fp32.

    The smaller a system, the less int8 helps it, so the fronts are others.
    """
    for name, (kept, wer, _, _) in SYSTEMS.items():
        for mode in modes:
            shutil.copytree(
                experiment / name / "decode/test/greedy", experiment / name / f"decode/test/{mode}"
            )
            score = experiment / name / f"decode/test/{mode}/score.json"
            edit(score, wer=wer + 20, ci95=[wer + 19, wer + 21])
        torch = {"encoder": kept * 1.0, "ctc_greedy": kept * 6.0, "joint": kept * 3.0}
        parts = {"torch_int8": torch, "onnx": {"ctc_greedy": 7.0}}
        parts["onnx_int8"] = {"ctc_greedy": kept * 5.0}
        made = {
            part: {"bytes": 9, "rtf": dict.fromkeys(speedup, 77.0), "speedup": speedup}
            for part, speedup in parts.items()
        }
        edit(experiment / name / "profile.json", int8=made)


def xs(chart) -> dict[str, float]:
    return {point.system: point.x for point in chart.points}


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / "exp" / "base"
    for name, (kept, wer, speedup, shared) in SYSTEMS.items():
        make_system(folder, name, "teacher" if name == "teacher" else "l0_distill")
        params = dict.fromkeys(("encoder", "total"), {"kept": kept, "dense": 1000})
        size = {"kept": 4 * kept, "dense": 4000}
        edit(folder / name / "system.json", params=params, shared=shared, weights_bytes=size)
        if name == "ladder_70":
            edit(folder / name / "system.json", row=RUN)
        speedups = {"encoder": speedup, "ctc_greedy": speedup, "joint": 1.0, "predicted": 2.0}
        edit(folder / name / "profile.json", speedup=speedups)
        for score in folder.glob(f"{name}/decode/*/*/score.json"):
            edit(score, wer=wer, ci95=[wer - 1, wer + 1])
    return folder


@pytest.mark.parametrize(
    ("points", "more_is_better", "front"),
    [
        ([(1, 9), (2, 5), (3, 4)], False, {0, 1, 2}),
        ([(1, 9), (2, 5), (3, 4)], True, {2}),
        ([(1, 5), (2, 5), (3, 6)], False, {0}),
        ([(1, 5), (1, 5)], False, {0, 1}),
        ([(2, 5), (1, 6), (1, 5.5)], False, {0, 2}),
    ],
)
def test_the_front_is_what_no_other_beats(points, more_is_better, front):
    assert pareto_front(points, more_is_better) == front


def test_sizes_of_one_run_are_a_curve_and_what_they_share_is_counted_once(experiment):
    curves = {curve.label: curve for curve in curves_of(read_systems([experiment]))}
    assert set(curves) == {"teacher", "ladder (l0_distill)", "single (l0_distill)"}
    ladder, single = (curves[f"{name} (l0_distill)"] for name in ("ladder", "single"))
    assert ladder.systems == ("ladder_30", "ladder_70")
    assert (single.updates, ladder.updates) == (30, 26)
    assert (single.train_seconds, ladder.train_seconds) == (7.0, 6.0)


def test_another_training_is_another_curve(experiment):
    other = {"training": {"optim_conf": {"lr": 0.1}}}
    edit(experiment / "single_70/system.json", row=other)
    curves = curves_of(read_systems([experiment]))
    assert ("single_30",) in {curve.systems for curve in curves}
    assert ("single_70",) in {curve.systems for curve in curves}


def test_figures_and_json_of_every_set_and_mode(experiment, capsys):
    assert run(["pareto", str(experiment)]) == 0
    out = experiment / "pareto"
    assert {path.name for path in out.iterdir()} == {
        "pareto.json",
        *(f"pareto_test_{mode}.{kind}" for mode in ("greedy", "joint") for kind in ("png", "svg")),
    }
    assert (out / "pareto_test_joint.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (out / "pareto_test_joint.svg").read_text()
    result = json.loads((out / "pareto.json").read_text())
    fronts = {(c["wer"], c["against"]): c["front"] for c in result["charts"]}
    by_size = ["ladder_70", "single_30", "teacher"]
    assert fronts["test/joint", "parameters_millions"] == by_size
    assert fronts["test/joint", "file_megabytes"] == by_size
    assert fronts["test/joint", "encoder_speedup"] == by_size[::-1]
    assert fronts["test/joint", "rtf"] == ["teacher"], "as fast as the others there, and better"
    assert fronts["test/greedy", "rtf"] == by_size
    greedy = next(c for c in result["charts"] if (c["wer"], c["against"]) == ("test/greedy", "rtf"))
    assert {p["system"]: p["x"] for p in greedy["points"]} == pytest.approx(
        {name: 0.02 / speedup for name, (_, _, speedup, _) in SYSTEMS.items()}
    )
    printed = capsys.readouterr().out
    assert "ladder (l0_distill): 2 systems, 26 updates, 6 s" in printed
    assert "WER test/greedy against rtf: ladder_70, single_30, teacher" in printed


def test_the_same_numbers_make_the_same_figure(experiment, tmp_path):
    leave_out("joint", experiment)
    for name in ("one", "other"):
        run(["pareto", str(experiment), "--out", str(tmp_path / name)])
    one, other = (tmp_path / name / "pareto_test_greedy.svg" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_one_that_failed_does_not_hide_the_others(experiment):
    leave_out("greedy", experiment)
    edit(experiment / "single_70/decode/test/joint/score.json", wer=99.0, ci95=[98.0, 100.0])
    run(["pareto", str(experiment)])
    text = (experiment / "pareto/pareto_test_joint.svg").read_text()
    assert text.count("<!-- 99 ↑ -->") == 4 and "<!-- 100 -->" not in text


def test_times_of_several_machines_have_no_front(experiment):
    leave_out("greedy", experiment)
    edit(experiment / "ladder_70/profile.json", machine={"cpu": "x", "cores": 1, "torch": "2"})
    lines = read_systems([experiment])
    size, file, speedup, rtf = charts(lines, curves_of(lines))["test/joint"]
    assert {point.on_front for point in rtf.points} == {None}
    assert {point.on_front for point in (*size.points, *file.points, *speedup.points)} == {
        True,
        False,
    }
    run(["pareto", str(experiment)])
    text = (experiment / "pareto/pareto_test_joint.svg").read_text()
    assert "measured on several machines: no front" in text


def test_what_is_not_profiled_is_drawn_against_its_sizes_alone(experiment):
    (experiment / "single_70/profile.json").unlink()
    lines = read_systems([experiment])
    drawn = charts(lines, curves_of(lines))["test/joint"]
    assert [len(chart.points) for chart in drawn] == [5, 5, 4, 4]


@pytest.mark.parametrize(
    ("mode", "times_greater", "dense_rtf", "runtime"),
    [
        ("greedy_int8", 6, 0.02, "torch"),
        ("joint_int8", 3, 0.2, "torch"),
        ("ctc_prefix_int8", 1, 0.01, "torch"),
        ("greedy_onnx_int8", 5, 0.02, "ONNX Runtime"),
    ],
)
def test_int8_is_drawn_against_int8_alone(experiment, mode, times_greater, dense_rtf, runtime):
    before = charts(lines := read_systems([experiment]), curves_of(lines))
    decode_in_int8(experiment, (mode,))
    drawn = charts(lines := read_systems([experiment]), curves_of(lines))
    assert {key: drawn[key] for key in before} == before, "of fp32 nothing has changed"
    found = {chart.axis.name: chart for chart in drawn[f"test/{mode}"]}
    kept = {name: row[0] for name, row in SYSTEMS.items()}
    wers = {point.system: point.wer for chart in found.values() for point in chart.points}
    assert wers == {name: row[1] + 20 for name, row in SYSTEMS.items()}
    assert xs(found["parameters_millions"]) == pytest.approx(
        {name: number / 1e6 for name, number in kept.items()}
    )
    if runtime == "torch":
        assert xs(found["encoder_speedup"]) == pytest.approx(kept)
        assert found["encoder_speedup"].label.endswith("in int8 over\nthe dense model's in fp32")
    else:
        assert "encoder_speedup" not in found, "nobody measured ONNX Runtime's encoder alone"
    assert xs(found["rtf"]) == pytest.approx(
        {name: dense_rtf / (times_greater * number) for name, number in kept.items()}
    ), "the teacher in int8 isn't the dense model"
    assert f"in int8 by {runtime}:" in found["rtf"].label
    assert [point.system for point in pareto_plot.front(found["rtf"])] == ["teacher"]


def test_int8_that_was_not_timed_is_drawn_against_its_size_alone(experiment):
    decode_in_int8(experiment)
    for path in experiment.glob("*/profile.json"):
        edit(path, int8=None)
    drawn = charts(lines := read_systems([experiment]), curves_of(lines))
    names = {key: [chart.axis.name for chart in each] for key, each in drawn.items()}
    timed = ["parameters_millions", "file_megabytes", "encoder_speedup", "rtf"]
    assert names == {
        **dict.fromkeys(("test/greedy", "test/joint"), timed),
        **dict.fromkeys(
            ("test/greedy_int8", "test/joint_int8", "test/greedy_onnx_int8"), timed[:1]
        ),
    }


def test_the_file_and_the_figure_say_that_times_are_of_int8(experiment):
    for mode in ("joint", "greedy"):
        decode_in_int8(experiment, (f"{mode}_int8",))
        leave_out(mode, experiment)
    leave_out("joint_int8", experiment)
    run(["pareto", str(experiment)])
    label = "real-time factor in int8 by torch: the dense model's in fp32, over the speed-up"
    *_, rtf = json.loads((experiment / "pareto/pareto.json").read_text())["charts"]
    assert (rtf["wer"], rtf["against"], rtf["label"]) == ("test/greedy_int8", "rtf", label)
    text = (experiment / "pareto/pareto_test_greedy_int8.svg").read_text()
    assert "real-time factor in int8 by torch:" in text


def curves_named(*, teachers: int, methods: int) -> list[Curve]:
    numbers = {"teacher": teachers, "l0": methods}
    return [
        Curve(f"{method}{index}", method, (f"{method}{index}",), None, 0)
        for method, number in numbers.items()
        for index in range(number)
    ]


@pytest.mark.parametrize(("teachers", "methods"), [(1, 9), (1, 15), (3, 20), (2, 45)])
def test_no_two_curves_look_alike(teachers, methods):
    curves = curves_named(teachers=teachers, methods=methods)
    drawn = pareto_plot.styles(curves)
    assert len(set(drawn.values())) == teachers + methods
    of_teachers = {drawn[curve.label].colour for curve in curves if curve.method == "teacher"}
    of_methods = {drawn[curve.label].colour for curve in curves if curve.method != "teacher"}
    assert of_teachers == {"black"} and "black" not in of_methods
    assert len(of_methods) == min(methods, 20)
    markers = {drawn[curve.label].marker for curve in curves if curve.method != "teacher"}
    assert len(markers) == min(methods, 13)  # what is left of a look in grey


def test_the_colours_can_be_told_apart():
    from matplotlib.colors import to_rgb

    colours = [to_rgb(colour) for colour in (*pareto_plot.COLOURS, "black", "white")]
    for one, other in itertools.combinations(colours, 2):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 0.25, (one, other)


def test_figures_have_the_styles(experiment, monkeypatch):
    figures = []
    monkeypatch.setattr(pareto_plot, "save", lambda figure, *paths: figures.append(figure))
    leave_out("joint", experiment)
    run(["pareto", str(experiment)])
    for axes in figures[0].axes:
        looks = {bars[0].get_color(): bars[0].get_marker() for bars in axes.containers}
        assert looks == {"black": "s", "#1f77b4": "o", "#ff7f0e": "^"}


def test_names_of_those_above_are_inside_the_panel_and_apart(experiment, monkeypatch):
    figures = []
    monkeypatch.setattr(pareto_plot, "save", lambda figure, *paths: figures.append(figure))
    leave_out("greedy", experiment)
    for name, wer in (("single_30", 99.0), ("ladder_30", 98.0)):
        score = experiment / name / "decode/test/joint/score.json"
        edit(score, wer=wer, ci95=[wer - 1, wer + 1])
    run(["pareto", str(experiment)])
    figure = figures[0]
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
        assert set(boxes) == {"99 ↑", "98 ↑"}
        assert all(box.y1 < axes.bbox.y1 - 2 for box in boxes.values())
        assert not boxes["99 ↑"].overlaps(boxes["98 ↑"])


def test_two_sets_of_one_name_are_refused(experiment, tmp_path):
    other = tmp_path / "exp" / "other"
    make_system(other, "teacher", "teacher")
    for score in other.glob("teacher/decode/*/*/score.json"):
        edit(score, words=101)
    with pytest.raises(DataError, match="100 words and other/teacher on 101.*of one corpus"):
        run(["pareto", str(experiment), str(other)])


def test_without_scores_the_stage_is_named(tmp_path):
    make_system(tmp_path / "base", "teacher", "teacher", complete=False)
    with pytest.raises(DataError, match=r"no scores; run stage 11 \(score\) first"):
        run(["pareto", str(tmp_path / "base")])


def test_a_file_in_the_folders_place_is_refused(experiment, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file is a file; a folder was expected"):
        run(["pareto", str(experiment), "--out", str(tmp_path / "file")])
