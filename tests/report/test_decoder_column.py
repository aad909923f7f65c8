"""Tables and plots of sizes know of the decoder where a system's decoder is smaller."""

from collections import defaultdict

import pytest

from espnet_prune.report import plots
from espnet_prune.report.tables import tables


def system(name: str, method: str, decoder: dict | None) -> dict:
    params = {
        "prunable": None if method == "teacher" else {"kept": 500, "dense": 1000},
        "encoder": {"kept": 700, "dense": 800},
        "total": {"kept": 1100, "dense": 1200},
    }
    params |= {"decoder": decoder} if decoder else {}
    given = {"name": name, "method": method, "params": params, "options": {}, "wer": {}}
    return defaultdict(lambda: None, given)  # all else has not run


def sizes(*systems: dict) -> tuple[list[str], list[list[str]]]:
    report = {"schema": 1, "corpus": "c", "experiment": "e", "systems": list(systems)}
    table = tables([report])[0]
    return table.header, table.rows


def test_whole_decoders_need_no_column():
    header, _ = sizes(system("a", "magnitude", {"kept": 300, "dense": 300}))
    assert "decoder params" not in header
    assert "decoder params" not in sizes(system("a", "magnitude", None))[0]


def test_a_smaller_decoder_has_one_with_its_own_denominator():
    whole = {"kept": 300, "dense": 300}
    header, rows = sizes(
        system("teacher", "teacher", whole),
        system("old", "magnitude", None),
        system("cut", "l0_distill", {"kept": 120, "dense": 300}),
    )
    column = header.index("decoder params")
    assert header[column - 1 : column + 2] == ["encoder params", "decoder params", "model params"]
    assert [row[column] for row in rows] == ["300 of 300", "-", "120 of 300"]


@pytest.mark.parametrize(
    ("kept", "label", "size"),
    [(300, "encoder parameters", 700e-6), (120, "model parameters", 1100e-6)],
)
def test_wer_is_drawn_against_the_part_that_differs(monkeypatch, tmp_path, kept, label, size):
    shown = system("a", "magnitude", {"kept": kept, "dense": 300})
    shown["wer"] = {"test/greedy": {"wer": 5.0, "ci95": [4.0, 6.0]}}
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure) or path)
    plots.plot_wer_against_size([("a", shown)], "test/greedy", tmp_path / "plot.png")
    (axes,) = figures[0].axes
    assert axes.get_xlabel().startswith(label)
    assert list(axes.lines[0].get_xdata()) == pytest.approx([size])
