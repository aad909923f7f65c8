"""What a report comes to, from entries made up by the test; their numbers mean nothing."""

from pathlib import Path

import pytest
from made_up_experiment import edit, make_system

from espnet_prune.cli import run
from espnet_prune.errors import DataError
from espnet_prune.report.collect import collect
from espnet_prune.report.headline import gained, headline_table, next_steps


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / "exp" / "base"
    make_system(folder, "teacher", "teacher")
    make_system(folder, "l0_50", "l0_distill")
    make_system(folder, "uniform_50", "uniform_magnitude", seed=1)
    return folder


def test_the_sentence_names_the_best_and_what_it_costs(experiment):
    text = gained(collect(experiment, "made_up"))
    assert text.startswith("l0_50 makes the fewest errors of 2 pruned models. It keeps 60% of")
    assert "runs the encoder 1.40 times as fast" in text
    assert "has 5.0% WER on test/joint where the teacher has 5.0%" in text
    assert "no difference that can be shown by 100 words, p 0.40" in text


def test_a_difference_that_is_shown_is_called_one(experiment):
    edit(experiment / "l0_50/decode/test/joint/score.json", p_vs_teacher=0.0003)
    assert "(a difference by 100 words, p 0.0003)" in gained(collect(experiment, "made_up"))


def test_nothing_is_said_where_nothing_is_scored(tmp_path):
    make_system(tmp_path, "teacher", "teacher")
    make_system(tmp_path, "l0_50", "l0_distill", complete=False)
    report = collect(tmp_path, "made_up")
    assert gained(report) is None and next_steps(report, tmp_path) == []


def test_the_report_ends_with_what_was_gained_and_what_is_next(experiment, capsys):
    assert run(["report", str(experiment), "--corpus", "made_up"]) == 0
    printed = capsys.readouterr().out.split("Table:")[1]
    assert "l0_50 makes the fewest errors" in printed
    model = experiment / "l0_50" / "model"
    assert f"espnet-prune transcribe --model {model} FILE.wav" in printed


def test_the_table_has_a_row_a_system(experiment):
    report = collect(experiment, "made_up")
    lines = headline_table(report, "test/joint", ["teacher", "l0_50"]).splitlines()
    assert lines[2:] == [
        "| teacher | 0.0 M | not run | 5.00 [2.00, 9.00] | - | 1x |",
        "| l0_50 | 0.0 M | 3.9 MB | 5.00 [2.00, 9.00] | 0.400 | 1.40x |",
    ]
    with pytest.raises(DataError, match="no WER on test/joint of nobody; .* l0_50"):
        headline_table(report, "test/joint", ["nobody"])


def test_the_setup_script_that_is_named_is_there(repository):
    assert (Path(repository) / "egs/TEMPLATE/prune1/setup.sh").is_file()
