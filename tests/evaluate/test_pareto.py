"""Pareto fronts and plots from an experiment folder made up by the test."""

import json
import shutil

import pytest
from made_up_experiment import make_system

from espnet_prune.bin.pareto import main
from espnet_prune.errors import DataError
from espnet_prune.evaluate.pareto import charts, curves_of, pareto_front, read_systems

RUN = {"method": "l0_distill", "system": {"ladder": [0.3]}}
SHARED = {"system": "ladder_70", "seconds": 1.0, "updates": 4}
# parameters, WER, speed-up, updates of stage 8 and whether it is of the ladder's run
SYSTEMS = {
    "teacher": (1000, 5.0, 1.0, None),
    "ladder_30": (700, 5.5, 1.2, SHARED),
    "ladder_70": (300, 9.0, 2.0, None),
    "single_30": (700, 5.2, 1.3, None),
    "single_70": (300, 9.5, 1.9, None),
}


def edit(path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def leave_out(mode: str, experiment) -> None:
    """Half as much to draw."""
    for folder in experiment.glob(f"*/decode/test/{mode}"):
        shutil.rmtree(folder)


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / "exp" / "base"
    for name, (kept, wer, speedup, shared) in SYSTEMS.items():
        make_system(folder, name, "teacher" if name == "teacher" else "l0_distill")
        params = {"total": {"kept": kept, "dense": 1000}}
        edit(folder / name / "system.json", params=params, shared=shared)
        if name == "ladder_70":
            edit(folder / name / "system.json", prune_conf=RUN)
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


def test_figures_and_json_of_every_set_and_mode(experiment, capsys):
    assert main([str(experiment)]) == 0
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
        main([str(experiment), "--out", str(tmp_path / name)])
    one, other = (tmp_path / name / "pareto_test_greedy.svg" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_one_that_failed_does_not_hide_the_others(experiment):
    leave_out("greedy", experiment)
    edit(experiment / "single_70/decode/test/joint/score.json", wer=99.0, ci95=[98.0, 100.0])
    main([str(experiment)])
    text = (experiment / "pareto/pareto_test_joint.svg").read_text()
    assert text.count("<!-- 99 ↑ -->") == 3 and "<!-- 100 -->" not in text


def test_times_of_several_machines_have_no_front(experiment):
    leave_out("greedy", experiment)
    edit(experiment / "ladder_70/profile.json", machine={"cpu": "x", "cores": 1, "torch": "2"})
    lines = read_systems([experiment])
    size, speedup, rtf = charts(lines, curves_of(lines))["test/joint"]
    assert {point.on_front for point in rtf.points} == {None}
    assert {point.on_front for point in (*size.points, *speedup.points)} == {True, False}
    main([str(experiment)])
    text = (experiment / "pareto/pareto_test_joint.svg").read_text()
    assert "measured on several machines: no front" in text


def test_what_is_not_profiled_is_drawn_against_its_size_alone(experiment):
    (experiment / "single_70/profile.json").unlink()
    lines = read_systems([experiment])
    drawn = charts(lines, curves_of(lines))["test/joint"]
    assert [len(chart.points) for chart in drawn] == [5, 4, 4]


def test_two_sets_of_one_name_are_refused(experiment, tmp_path):
    other = tmp_path / "exp" / "other"
    make_system(other, "teacher", "teacher")
    for score in other.glob("teacher/decode/*/*/score.json"):
        edit(score, words=101)
    with pytest.raises(DataError, match="100 words and other/teacher on 101.*of one corpus"):
        main([str(experiment), str(other)])


def test_without_scores_the_stage_is_named(tmp_path):
    make_system(tmp_path / "base", "teacher", "teacher", complete=False)
    with pytest.raises(DataError, match=r"no scores; run stage 11 \(score\) first"):
        main([str(tmp_path / "base")])
