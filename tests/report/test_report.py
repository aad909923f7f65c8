"""The report from an experiment folder made up by the test; its numbers mean nothing."""

import json

import pytest
from made_up_experiment import edit, make_system

from espnet_prune.cli import run
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.io_atomic import write_text
from espnet_prune.models.espnet.folder import WEIGHTS as ESPNET_WEIGHTS
from espnet_prune.record import file_digest, mark_finished
from espnet_prune.report import plots
from espnet_prune.report.collect import (
    SiteWidth,
    collect,
    portable,
    prunes_single_weights,
    read_progress,
    system_entry,
)
from espnet_prune.report.plots import bars, plot_widths, width_grids
from espnet_prune.report.report import distinguishing_names
from espnet_prune.report.text_table import TERMINAL_COLUMNS, Table, fit, wer_cell

PARTS = ("index.html", "RESULTS.md", "report.json")


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / "exp" / "base"
    make_system(folder, "teacher", "teacher")
    make_system(folder, "l0_50", "l0_distill")
    make_system(folder, "l0_50_seed1", "l0_distill", seed=1)
    return folder


@pytest.fixture
def empty_pictures(monkeypatch):
    """Every picture's file is there; nothing is drawn into it, which takes most of the time."""

    def save(figure, *paths):
        from matplotlib import pyplot

        pyplot.close(figure)
        for path in paths:
            write_text(path, "")
        return paths[0]

    monkeypatch.setattr(plots, "save", save)


def test_report_has_the_schema(experiment, capsys):
    assert run(["report", str(experiment), "--corpus", "made_up"]) == 0
    report = json.loads((experiment / "report" / "report.json").read_text())
    assert report["schema"] == 1 and report["corpus"] == "made_up"
    assert [s["name"] for s in report["systems"]] == ["teacher", "l0_50", "l0_50_seed1"]
    system = report["systems"][1]
    assert set(system) >= {
        "name", "method", "params", "sparsity", "macs_per_second", "rtf", "speedup", "wer",
        "train_seconds",
    }  # fmt: skip
    assert set(system["wer"]["test/joint"]) >= {"errors", "words", "wer", "ci95", "p_vs_teacher"}
    assert system["train_seconds"] == 3.5
    printed = capsys.readouterr().out
    assert "l0_50" in printed and "index.html" in printed


def test_error_bars_of_equal_rates_are_not_below_nothing():
    """Each utterance with 1 error in 3 words: the interval is a hair below the rate."""
    rate, ends = 100 * 1 / 3, 100 * (1 / 3)
    assert ends < rate
    assert bars([rate, 10.0], [(ends, ends), (8.0, 13.0)]) == [[rate - ends, 2.0], [0.0, 3.0]]


def test_page_is_self_contained_and_plots_are_there(experiment):
    run(["report", str(experiment), "--corpus", "made_up"])
    page = (experiment / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 2 + 2 * 2  # modes; shape and training of each
    assert 'src="http' not in page
    results = (experiment / "report" / "RESULTS.md").read_text()
    assert "python -m example" in results
    assert "| l0 (l0_distill) at 50%, 2 seeds | 5.50 ± 0.71 (sd of 2) | 5.50 ± 0.71" in results


def test_a_mode_that_some_systems_were_decoded_in_has_a_column(experiment):
    score = experiment / "l0_50" / "decode" / "test" / "joint" / "score.json"
    path = experiment / "l0_50" / "decode" / "test" / "ctc_prefix" / "score.json"
    path.parent.mkdir()
    path.write_text(score.read_text())
    edit(path, wer=4.25)
    run(["report", str(experiment), "--corpus", "made_up"])
    results = (experiment / "report" / "RESULTS.md").read_text()
    lines = results.split("## WER")[1].splitlines()
    header, row, teacher = (
        next(line for line in lines if line.startswith(f"| {name} |")).split(" | ")
        for name in ("system", "l0_50", "teacher")
    )
    column = [name.strip(" |") for name in header].index("test/ctc_prefix")
    assert row[column].startswith("4.25") and teacher[column].startswith("not run")
    assert (experiment / "report" / "wer_against_size_test_ctc_prefix.png").exists()


@pytest.mark.parametrize(
    "other", [{"options": {"layer_weight": 0.0}}, {"training": {"optim_conf": {"lr": 0.1}}}]
)
def test_other_settings_are_no_other_seed(experiment, empty_pictures, other):
    edit(experiment / "l0_50_seed1" / "system.json", row=other)
    run(["report", str(experiment), "--corpus", "made_up"])
    text = (experiment / "report" / "RESULTS.md").read_text()
    ((kind, values),) = other.items()
    assert "2 seeds" not in text and f"; {kind} {json.dumps(values)};" in text
    report = json.loads((experiment / "report" / "report.json").read_text())
    assert [system[kind] for system in report["systems"]] == [{}, {}, values]


def test_commands_name_no_folder_of_this_machine(experiment, repository):
    system = experiment / "l0_50"
    recipe = experiment.parent.parent
    words = ["python", f"{recipe}/conf/a.yaml", f"{repository}/conf/b.yaml", "exp/base", "/other/c"]
    expected = ["python", "conf/a.yaml", "$root/conf/b.yaml", "exp/base", "/other/c"]
    assert portable(" ".join(words), system) == " ".join(expected)
    assert portable(f"-x {recipe}_2/a", system) == f"-x {recipe}_2/a"
    edit(system / "system.json", commands=[f"python --config {recipe}/conf/prune.yaml"])
    run(["report", str(experiment), "--corpus", "made_up"])
    for name in PARTS:
        text = (experiment / "report" / name).read_text()
        assert "python --config conf/prune.yaml" in text, name


def test_speed_ups_stand_beside_the_real_time_factors(experiment):
    path = experiment / "l0_50" / "profile.json"
    edit(path, speedup={"encoder": 1.4, "predicted": 1.5, "ctc_greedy": 1.3, "joint": 1.05})
    run(["report", str(experiment), "--corpus", "made_up"])
    text = (experiment / "report" / "RESULTS.md").read_text()
    assert "| 0.0100 | 0.0200 (1.30x) | 0.2000 (1.05x) |" in text
    assert "| 0.0100 | 0.0200 | 0.2000 |" in text  # a profile without them
    assert "the gates' expected sparsity was 49.00%" in text


def test_what_has_not_run_says_so(experiment):
    make_system(experiment, "half_done", "magnitude", complete=False)
    run(["report", str(experiment), "--corpus", "made_up"])
    report = json.loads((experiment / "report" / "report.json").read_text())
    half_done = next(s for s in report["systems"] if s["name"] == "half_done")
    assert half_done["rtf"] is None and half_done["speedup"] is None and half_done["wer"] == {}
    text = (experiment / "report" / "RESULTS.md").read_text()
    found = [line for line in text.splitlines() if line.startswith("| half_done")]
    assert [line.count("not run") for line in found] == [0, 7, 2]


def row_of(text: str, title: str, name: str) -> dict[str, str]:
    lines = text.split(f"## {title}")[1].splitlines()
    header, row = (
        next(line for line in lines if line.startswith(f"| {first} |")).strip("| ").split(" | ")
        for first in ("system", name)
    )
    return dict(zip(header, row, strict=True))


def test_the_size_of_the_file_of_weights(experiment):
    edit(experiment / "l0_50_seed1" / "system.json", weights_bytes=None)  # cut before it was kept
    weights = experiment / "teacher" / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(bytes(1500))
    run(["report", str(experiment), "--corpus", "made_up"])
    report = json.loads((experiment / "report" / "report.json").read_text())
    sizes = {system["name"]: system["weights_bytes"] for system in report["systems"]}
    assert sizes == {
        "teacher": {"kept": 1500, "dense": 1500},
        "l0_50": {"kept": 3_912_345, "dense": 7_600_000},
        "l0_50_seed1": None,
    }
    text = (experiment / "report" / "RESULTS.md").read_text()
    files = {name: row_of(text, "Sizes", name)["file"] for name in sizes}
    assert files == {
        "teacher": "1.5 kB of 1.5 kB",
        "l0_50": "3.9 MB of 7.6 MB",
        "l0_50_seed1": "not run",
    }


def test_sparsity_is_of_what_can_be_pruned_and_of_the_whole_model(experiment):
    assert run(["report", str(experiment)]) == 0
    text = (experiment / "report" / "RESULTS.md").read_text()
    report = json.loads((experiment / "report" / "report.json").read_text())
    system = next(s for s in report["systems"] if s["name"] == "l0_50")
    total = system["params"]["total"]
    gone = 100 * (1 - total["kept"] / total["dense"])
    cell = row_of(text, "Sizes", "l0_50")["sparsity reached"]
    assert cell.endswith(f" of prunable parameters ({gone:.1f}% of the model's)") and gone > 0


def test_what_several_sizes_share_is_marked(experiment, capsys):
    edit(experiment / "l0_50/system.json", row={"ladder": [0.3]})
    shared = {"system": "l0_50", "seconds": 1.25, "updates": 6}
    edit(experiment / "l0_50_seed1/system.json", shared=shared, updates={"prune": 6, "finetune": 9})
    run(["report", str(experiment), "--corpus", "made_up"])
    printed = capsys.readouterr().out
    assert "4 (1 of l0_50)" in printed and "a run of stage 8 that gave several sizes" in printed
    results = (experiment / "report/RESULTS.md").read_text()
    assert "; its run also gave the sizes 0.3;" in results
    assert "; its first 6 updates and 1 s are those of l0_50;" in results
    assert "l0 (l0_distill) of a ladder at 50%, 2 seeds" in results
    report = json.loads((experiment / "report/report.json").read_text())
    assert [s["shared"] for s in report["systems"]] == [None, None, shared]


def test_what_was_made_of_another_system_in_few_bits_says_so(experiment):
    asked = {"options": {}, "of": "l0_50", "as_cut": True, "bits": 4}
    edit(experiment / "l0_50_seed1/system.json", row=asked)
    run(["report", str(experiment), "--corpus", "made_up"])
    results = (experiment / "report/RESULTS.md").read_text()
    about = next(line for line in results.splitlines() if line.startswith("**l0_50_seed1**"))
    assert "; weights in 4 bits;" in about
    assert "; made of l0_50, whose updates and seconds come to these;" in about
    assert results.count("made of") == 1


def test_what_was_measured_of_an_earlier_model_is_left_out(experiment, caplog):
    """As where a system is finetuned anew, and not decoded and profiled since."""
    system, weights = experiment / "l0_50", experiment / "l0_50/model/espnet" / ESPNET_WEIGHTS
    weights.parent.mkdir(parents=True)
    (weights.parent / "config.yaml").write_text("{}")
    weights.write_text("one")
    edit(system / "profile.json", made_from={"models": {"system": file_digest(weights)}})
    for mode in ("greedy", "joint"):
        mark_finished(system / "decode/test" / mode, {"model": file_digest(weights)})
    entry = system_entry(system)
    assert entry["speedup"] and entry["wer"].keys() == {"test/greedy", "test/joint"}
    assert not caplog.records
    weights.write_text("another")
    entry = system_entry(system)
    assert entry["speedup"] is None and entry["wer"] == {}
    assert "l0_50/profile.json: left out, it is of an earlier model" in caplog.text


def test_zeros_in_tensors_of_the_same_shape_are_marked(experiment, capsys):
    run(["report", str(experiment), "--corpus", "made_up"])
    assert "same shape" not in capsys.readouterr().out
    make_system(experiment, "single", "self_pinching_weights")
    make_system(experiment, "begun", "uniform_magnitude_weights", complete=False)
    edit(experiment / "begun" / "system.json", params=None, weights_bytes=None)
    run(["report", str(experiment), "--corpus", "made_up"])
    printed = capsys.readouterr().out.partition("\nReport:")[0]
    assert printed.count("tensors of the same shape") == 1
    assert max(map(len, printed.splitlines())) <= TERMINAL_COLUMNS
    text = (experiment / "report" / "RESULTS.md").read_text()
    single, begun, units = (row_of(text, "Sizes", n) for n in ("single", "begun", "l0_50"))
    for part, size in (("encoder params", "600 of 1,000"), ("model params", "700 of 1,100")):
        assert (single[part], begun[part], units[part]) == (f"{size} *", "not run", size)
    assert "\n\\* Single weights" in text.split("## Sizes")[1].split("## Speed")[0]
    assert "* Single weights" in (experiment / "report" / "index.html").read_text()


def test_methods_of_single_weights_are_known_by_their_name():
    from espnet_prune.methods import METHODS
    from espnet_prune.sites import WEIGHT

    made = {name: method(target=method.target_range[0]) for name, method in METHODS.items()}
    single = {name for name, method in made.items() if tuple(method.site_kinds) == (WEIGHT,)}
    assert single == {name for name in METHODS if prunes_single_weights({"method": name})}


def test_nothing_but_a_system_is_a_report_too(tmp_path, capsys):
    make_system(tmp_path / "base", "teacher", "teacher", complete=False)
    assert run(["report", str(tmp_path / "base"), "--corpus", "made_up"]) == 0
    assert "Nothing has been scored yet" in capsys.readouterr().out


def test_several_experiments_side_by_side(experiment, tmp_path, capsys):
    other = tmp_path / "exp" / "other"
    make_system(other, "teacher", "teacher")
    run(["report", str(experiment), "--corpus", "made_up"])
    own = (experiment / "report" / "report.json").read_text()
    run(["report", str(experiment), str(other)])
    printed = capsys.readouterr().out
    assert "base/l0_50" in printed and "other/teacher" in printed
    assert (experiment / "report" / "report.json").read_text() == own
    both = experiment / "report" / "compared_with_other"
    assert all((both / name).exists() for name in PARTS)
    first, second = json.loads((both / "report.json").read_text())["experiments"]
    assert (first["corpus"], second["corpus"]) == ("made_up", "unnamed")


def test_experiments_of_one_name_are_told_apart(tmp_path):
    folders = [tmp_path / corpus / "l0_conformer1" / "exp" / "base" for corpus in ("an4", "synth")]
    assert distinguishing_names(folders) == ["an4", "synth"]
    assert distinguishing_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    with pytest.raises(DataError, match="twice"):
        distinguishing_names([tmp_path / "a", tmp_path / "a"])


def test_the_printed_table_fits_a_terminal(experiment, capsys):
    for number in range(3):
        name = f"a_system_with_a_long_name_{number}"
        make_system(experiment, name, "small_from_scratch", seed=number)
        params = {"kept": 98_765_432, "dense": 123_456_789}
        parts = dict.fromkeys(("prunable", "encoder", "total"), params)
        edit(experiment / name / "system.json", params=parts)
        for mode in ("greedy", "joint"):
            score = (experiment / name / "decode" / "test" / mode / "score.json").read_text()
            path = experiment / name / "decode" / "another_test_set" / mode / "score.json"
            path.parent.mkdir(parents=True)
            path.write_text(score)
    run(["report", str(experiment), "--corpus", "made_up"])
    table = capsys.readouterr().out.partition("\nReport:")[0]
    assert max(map(len, table.splitlines())) <= TERMINAL_COLUMNS


def test_a_split_table_keeps_every_column_once():
    header = ["system", *(f"column {i}" for i in range(9))]
    table = Table("made up", header, [[f"{name} cell" for name in header]])
    parts = list(fit(table, 40))
    assert len(parts) > 1
    assert [name for part in parts for name in part.header[1:]] == header[1:]
    assert all(part.header[0] == "system" for part in parts)


def width(name: str, block: int | None) -> SiteWidth:
    return SiteWidth(name, "any", block, 2, 4)


def shape(grids) -> list[dict[str, list[str]]]:
    return [{row: list(columns) for row, columns in grid.items()} for grid in grids]


def test_widths_of_encoder_and_decoder_are_apart(tmp_path):
    names = {  # the decoder's blocks count on from the encoder's
        "encoder.block.0.attention.heads": 0,
        "encoder.block.0.feed_forward.units": 0,
        "encoder.block.0.attention": 0,  # a branch
        "decoder.block.0.attention.heads": 1,
        "decoder.block.0.cross_attention.heads": 1,
        "decoder.block.1.cross_attention.heads": 2,
        "decoder.block.1.cross_attention": 2,
    }
    sites = [width(name, block) for name, block in names.items()]
    assert shape(width_grids(sites)) == [
        {"encoder block 0": ["attention heads", "feed forward units"]},
        {
            "decoder block 0": ["attention heads", "cross attention heads"],
            "decoder block 1": ["cross attention heads"],
        },
    ]
    assert plot_widths("made_up", sites, tmp_path / "widths.png").stat().st_size > 0


def test_widths_of_a_transducers_networks_are_a_row_below_the_encoders():
    names = ("block.0.attention.heads", "decoder.prediction.0.units", "decoder.joint.units")
    assert shape(width_grids([width(name, block) for block, name in enumerate(names)])) == [
        {"block 0": ["attention heads"]},
        {"decoder": ["prediction 0 units", "joint units"]},
    ]


def test_widths_of_the_front_end_stand_above_the_blocks(tmp_path):
    names = {
        "block.0": 0,
        "block.0.convolution": 0,
        "block.0.convolution.channels": 0,
        "front_end.1": None,
    }
    sites = [width(name, block) for name, block in names.items()]
    assert shape(width_grids(sites)) == [
        {"front-end": ["channels of convolution 1"]},
        {"block 0": ["convolution channels"]},
    ]
    assert shape(width_grids([])) == [{"": []}]
    assert plot_widths("made_up", [], tmp_path / "widths.png").exists()


def test_a_tiny_p_value_is_not_zero():
    score = {"wer": 5.0, "ci95": [4.0, 6.0], "p_vs_teacher": 0.0002}
    assert wer_cell(score) == "5.00 [4.0, 6.0] p < 0.001"


def test_no_system_is_an_error(tmp_path):
    with pytest.raises(DataError, match="system.json"):
        collect(tmp_path, "made_up")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("profile.json", "{"),
        ("profile.json", '{"schema": 1, "rtf": {}}'),
        ("system.json", "[]"),
        ("system.json", '{"schema": 2, "name": "l0_50"}'),
        ("decode/test/joint/score.json", '{"schema": 1}'),
        ("plan.json", '{"schema": 1, "sites": {"block.0": {}}}'),
        ("prune/progress.csv", "epoch,update,loss\n1,1,2.0\n1,2,oops\n"),
    ],
)
def test_a_damaged_file_is_named(experiment, name, text):
    (experiment / "l0_50" / name).write_text(text)
    with pytest.raises(DataError, match=name):
        run(["report", str(experiment), "--corpus", "made_up"])


def test_a_file_in_the_reports_place_is_refused(experiment, tmp_path):
    (tmp_path / "file").write_text("x")
    for out in ("file", "file/below"):
        with pytest.raises(ConfigError, match="file is a file; a folder was expected"):
            run(["report", str(experiment), "--out", str(tmp_path / out)])


def test_only_systems_of_the_report_have_pictures(experiment, empty_pictures):
    """What has no row any longer, because its record was removed, has none either."""
    run(["report", str(experiment)])
    pictures = experiment / "report"
    (pictures / "drawn_by_somebody.png").write_bytes(b"")
    gone = {f"{kind}_l0_50_seed1.png" for kind in ("widths", "training")}
    before = {path.name for path in pictures.glob("*.png")}
    (experiment / "l0_50_seed1" / "system.json").unlink()
    run(["report", str(experiment)])
    assert gone < before
    assert {path.name for path in pictures.glob("*.png")} == before - gone
    assert "l0_50_seed1" not in (pictures / "index.html").read_text()


def test_a_first_report_leaves_what_is_in_its_folder(experiment, tmp_path, empty_pictures):
    (tmp_path / "training_of_mine.png").write_bytes(b"")
    run(["report", str(experiment), "--out", str(tmp_path)])
    assert (tmp_path / "training_of_mine.png").exists()


def test_progress_may_lack_columns_and_cells(experiment):
    path = experiment / "l0_50" / "prune" / "progress.csv"
    path.write_text("epoch,update,loss,acc\n1,1,2.0,\n1,2,1.0,0.5\n")
    columns = read_progress(path)
    assert columns["loss"] == [2.0, 1.0] and columns["acc"][1] == 0.5
    assert columns["acc"][0] != columns["acc"][0]  # not a number
    assert run(["report", str(experiment), "--corpus", "made_up"]) == 0
