"""The benchmarks' one command, with tiny models: what it writes and what it counts."""

import json
from dataclasses import replace

import pytest
import torch


@pytest.fixture
def benchmarks(repository, monkeypatch):
    """The folder's modules can be imported."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))


@pytest.mark.timeout(400)  # all parts, an export among them: 20 s alone, more on a busy machine
def test_everything_is_measured_printed_and_drawn(benchmarks, tmp_path, capsys, monkeypatch):
    import run_all

    assert run_all.main(["--quick", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "benchmarks.json").read_text())
    assert set(run_all.PARTS) < set(record)
    assert (record["threads"], record["batch"]) == (1, 1)
    assert set(record["commits"]) == set(run_all.PARTS)
    assert set(record["machine"]) == {"cpu", "cores", "torch"}
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__}" in printed and "1 thread, batch 1" in printed
    assert all(f"== {name}" in printed for name in run_all.PARTS)
    assert {path.name for path in tmp_path.glob("*.png")} == {"grid.png", "size.png", "length.png"}
    rows = record["grid"]["rows"]
    assert len(rows) == 6  # two shapes by two measures, at one sparsity, and the halves
    assert [row["structure"] for row in rows].count("half of every width") == 1
    for row in rows:
        ours, dense = row["seconds"]["ours"], row["dense_seconds"]["ours"]
        assert row["speedup"] == pytest.approx(dense / ours)
        assert row["realised_over_predicted"] == pytest.approx(row["speedup"] / row["predicted"])
        assert row["predicted"] > 1 and 0 < row["kept_parameters"] < 1
    assert {row["seconds"] for row in record["length"]["rows"]} == set(run_all.QUICK.lengths)
    models = ("dense", "cut", "cut, decoder too")
    searches = {f"{model}, {whose}" for model in models for whose in ("ours", "stock")}
    assert set(record["joint"]["speedup"]) == searches
    assert len(record["int8"]["speedup"]) == 5
    page = (tmp_path / "RESULTS.md").read_text()
    assert page == run_all.page(record) and all(f"## {name}" in page for name in run_all.PARTS)
    assert all(f"({path.name})" in page for path in tmp_path.glob("*.png"))
    capsys.readouterr()
    assert run_all.main(["--quick", "--out", str(tmp_path), "--parts", "training_step"]) == 0
    again = json.loads((tmp_path / "benchmarks.json").read_text())
    assert again["grid"] == record["grid"] and "== grid" not in capsys.readouterr().out
    monkeypatch.setattr(run_all, "QUICK", replace(run_all.QUICK, seconds=3.0))
    assert run_all.main(["--quick", "--out", str(tmp_path), "--parts", "training_step"]) == 0
    assert "grid" not in json.loads((tmp_path / "benchmarks.json").read_text())


def test_what_keeps_its_front_end_keeps_it_whole(benchmarks):
    import structures

    dense = structures.dense_encoder(64, 2, kernel=7)
    made = structures.whole_front_end(dense, 2.0)
    for ours, whole in zip(made.encoder.embed.parameters(), dense.embed.parameters(), strict=True):
        assert ours.equal(whole)
    blocks = [sum(p.numel() for p in e.encoders.parameters()) for e in (made.encoder, dense)]
    assert 0.45 < blocks[0] / blocks[1] < 0.6


def test_half_of_every_width_is_that(benchmarks):
    import structures

    made = structures.halved_encoder(structures.dense_encoder(64, 2, kernel=7), 2.0)
    (first, _), layer = made.encoder.embed.conv[::2], made.encoder.encoders[1]
    assert first.out_channels == layer.conv_module.depthwise_conv.out_channels == 32
    assert layer.feed_forward.w_1.out_features == layer.feed_forward_macaron.w_1.out_features == 128
    assert layer.self_attn.h == 1  # of one: half is rounded up


@pytest.mark.parametrize("shape", ["uniform", "learned"])
@pytest.mark.parametrize("measure", ["parameters", "macs"])
def test_structures_hit_their_size_and_macs_are_those_that_run(benchmarks, shape, measure):
    import structures
    from torch.utils.flop_counter import FlopCounterMode

    dense = structures.dense_encoder(64, 3, kernel=7)
    made = structures.cut_encoder(dense, shape, 0.5, measure, 2.0)
    counted = []
    for encoder in (dense, made.encoder):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encoder(*structures.features(2.0))
        counted.append(counter.get_total_flops() // 2)
    assert counted == [structures.dense_macs(dense, 2.0), made.macs]
    whole = sum(p.numel() for p in dense.parameters())
    size = made.parameters / whole if measure == "parameters" else made.macs / counted[0]
    assert size == pytest.approx(0.5, abs=0.02)
    aligned = structures.cut_encoder(dense, shape, 0.5, measure, 2.0, align=8)
    channels = [layer.conv_module.depthwise_conv.out_channels for layer in aligned.encoder.encoders]
    assert all(number % 8 == 0 for number in channels)


def test_a_run_that_is_ended_leaves_a_page_of_what_it_measured(benchmarks, tmp_path, monkeypatch):
    import run_all

    def ended(*unused):
        raise KeyboardInterrupt

    monkeypatch.setitem(run_all.PARTS, "size", replace(run_all.PARTS["size"], measure=ended))
    with pytest.raises(KeyboardInterrupt):
        run_all.main(["--quick", "--out", str(tmp_path), "--parts", "training_step", "size"])
    page = (tmp_path / run_all.PAGE).read_text()
    assert "## training_step" in page and "## size" not in page


def test_an_unknown_part_is_refused(benchmarks, tmp_path, capsys):
    import run_all

    with pytest.raises(SystemExit):
        run_all.main(["--out", str(tmp_path), "--parts", "nothing"])
    assert "nothing" in capsys.readouterr().err
