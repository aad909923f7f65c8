"""Published figures beside ours: each marked, none made up, no cell empty."""

import json

import pytest

from espnet_prune.cli import main, run
from espnet_prune.report.paper_table import NOT_PUBLISHED, read_papers

UNMEASURED = {"params": None, "speedup": None, "wer": {}, "train_seconds": None}


def system(name: str, method: str, **values) -> dict:
    params = {"total": {"kept": 600, "dense": 1000}, "encoder": {"kept": 400, "dense": 800}}
    score = {"wer": 8.5, "ci95": [7.0, 10.0], "p_vs_teacher": 0.25}
    return {
        "name": name,
        "method": method,
        "params": params,
        "speedup": {"predicted": 2.0, "encoder": 1.25},
        "wer": {"test_clean/joint": score},
        "train_seconds": 1234.4,
        "shared": None,
        **values,
    }


@pytest.fixture
def report(tmp_path):
    prunable = {
        "total": {"kept": 600, "dense": 1000},
        "prunable": {"kept": 100, "dense": 500},
    }
    systems = [
        system("teacher", "teacher"),
        system("half", "l0_distill"),
        system("unmeasured", "l0_distill", **UNMEASURED),
        system("scored", "magnitude"),
        system("searched", "nas"),
        system("single", "uniform_magnitude_weights", params=prunable),
        system("pinched", "self_pinching"),
    ]
    path = tmp_path / "report.json"
    value = {"schema": 1, "corpus": "made_up", "experiment": "base", "systems": systems}
    path.write_text(json.dumps(value))
    return path


def rows(text: str) -> dict[str, list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0]: row[1:] for row in cells if not row[0].startswith("---")}


def test_ours_are_measured_and_marked(report, capsys):
    assert run(["table", "--paper", "P1", str(report)]) == 0
    table = rows(capsys.readouterr().out)
    column = table["model"].index("WER test_clean")
    half = table["half (l0_distill)"]
    assert half[:3] == [
        "ours: made_up, base",
        "40.0% of the model, 50.0% of the encoder",
        "encoder: 50.0% of MACs, 20.0% of time",
    ]
    assert half[column] == "joint: 8.50 [7.0, 10.0] p 0.250"
    assert set(table["unmeasured (l0_distill)"][1:]) == {"not run"}
    assert table["teacher"][1:3] == ["-", "-"]
    assert not any("pinched" in name for name in table)


def test_training_takes_seconds_of_ours_and_none_are_published(report, capsys):
    value = json.loads(report.read_text())
    part = {"system": "half", "updates": 9, "seconds": 600.0}
    value["systems"].append(system("smaller", "l0_distill", shared=part))
    report.write_text(json.dumps(value))
    run(["table", "--paper", "P1", str(report)])
    table = rows(capsys.readouterr().out)
    column = table["model"].index("training s")
    found = {name: table[name][column] for name in ("teacher", "half (l0_distill)", "random")}
    assert found == {"teacher": "1234", "half (l0_distill)": "1234", "random": "not run"}
    assert table["smaller (l0_distill)"][column] == "1234 (600 of them of half too)"
    assert table["Conformer pruned by learned L0 masks, LibriSpeech"][column] == NOT_PUBLISHED
    assert table["Conformer RNN-T, 960 h, uncompressed"][column] == "-"


def test_published_are_marked_and_what_is_not_published_says_so(report, capsys):
    run(["table", "--paper", "P1", str(report)])
    table = rows(capsys.readouterr().out)
    paper = table["Conformer pruned by learned L0 masks, LibriSpeech"]
    assert paper[0] == "published: arXiv 2305.19549"
    assert paper[1:3] == ["50% (of what: not published)", "28% (unit: not published)"]
    assert set(paper[3:]) == {NOT_PUBLISHED}
    assert all(cell for row in table.values() for cell in row)


def test_second_paper_has_its_own_methods(report, capsys):
    run(["table", "--paper", "P2", str(report)])
    table = rows(capsys.readouterr().out)
    names = list(table)
    assert not any("scored" in name for name in names)
    assert names[-9:] == [
        "teacher",
        "unpruned",
        "pinched (self_pinching)",
        "self_pinching_weights",
        "half (l0_distill)",
        "unmeasured (l0_distill)",
        "uniform_magnitude",
        "single (uniform_magnitude_weights)",
        "searched (nas)",
    ]
    ratio = table["self-pinching gates at 4.26x compression"]
    assert ratio[1].startswith("4.26x (of what: encoder's attention") and "7.05" in ratio


def test_baselines_of_the_second_paper_have_a_name_and_no_figure(report, capsys):
    run(["table", "--paper", "P2", str(report)])
    table = rows(capsys.readouterr().out)
    for name in ("uniform magnitude pruning", "NAS-based channel pruning with Gumbel-softmax"):
        origin, *cells = table[name]
        assert origin.startswith("published: only its name, Xu et al.")
        assert set(cells) == {NOT_PUBLISHED}
    assert all(cell for row in table.values() for cell in row)


def test_single_weights_are_said_to_be_zeros(report, capsys):
    run(["table", "--paper", "P2", str(report)])
    table = rows(capsys.readouterr().out)
    smaller = "40.0% of the model, 80.0% of the prunable; zeros in tensors of the same shape"
    assert table["single (uniform_magnitude_weights)"][1] == smaller
    assert "zeros" not in table["pinched (self_pinching)"][1]


def test_without_a_report_ours_is_not_run(capsys):
    run(["table", "--paper", "P2"])
    table = rows(capsys.readouterr().out)
    ours = {name: row[1:] for name, row in table.items() if row[0] == "ours"}
    assert list(ours) == ["teacher", *read_papers()["P2"].methods]
    assert all(set(cells) == {"not run"} for cells in ours.values())


def test_compared_experiments_are_taken_apart(report, tmp_path, capsys):
    one = json.loads(report.read_text())
    both = {"schema": 1, "experiments": [one, {**one, "experiment": "other"}]}
    (tmp_path / "both.json").write_text(json.dumps(both))
    run(
        [
            "table",
            "--paper",
            "P1",
            str(tmp_path / "both.json"),
            "--out",
            str(tmp_path / "new/P1.md"),
        ]
    )
    text = (tmp_path / "new/P1.md").read_text()
    assert "ours: made_up, base" in text and "ours: made_up, other" in text
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--paper", "P9"], "choose one of ['P1', 'P2']"), (["--paper", "P1", "x.json"], "x.json")],
)
def test_unknown_paper_and_missing_report_are_named(capsys, arguments, message):
    assert main(["table", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_another_json_file_is_refused(tmp_path, capsys):
    (tmp_path / "x.json").write_text('{"schema": 1}')
    assert main(["table", "--paper", "P1", str(tmp_path / "x.json")]) == 2
    assert "it isn't a report.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "message"),
    [("", "it is a folder; a file was expected"), ("file/P1.md", "file is a file; a folder")],
)
def test_a_place_where_no_file_can_be_written_is_refused(tmp_path, capsys, out, message):
    (tmp_path / "file").write_text("x")
    assert main(["table", "--paper", "P1", "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err


def test_every_published_row_has_a_source_and_a_figure():
    for paper in read_papers().values():
        for row in paper.rows:
            assert row.source
            assert row.wer or row.smaller or row.ratio or row.cheaper


def test_our_methods_beside_a_paper_exist():
    from espnet_prune.methods import METHODS

    assert {m for paper in read_papers().values() for m in paper.methods} <= METHODS.keys()
