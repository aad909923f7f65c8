"""Weights in few bits: levels in closed form, files that are as small as they should be."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import encoder, features

from espnet_prune.errors import ModelError
from espnet_prune.io_atomic import write_json
from espnet_prune.surgery import load, save
from espnet_prune.surgery.few_bits import LEAST_NUMBERS, round_weights
from espnet_prune.surgery.rounding import FORMS, LEVELS, SCALES, Rounded, nearest, pack, unpack
from espnet_prune.surgery.sparse import mark_sparse


def test_eight_bits_are_whole_shares_of_the_largest_number_of_a_row():
    weight = torch.tensor([[1.0, -1.0, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0], [3.0, -6.0, 0.1, 6.0]])
    values, scales = nearest(weight, FORMS[8])
    assert scales[:, 0].tolist() == pytest.approx([1 / 127, 0, 6 / 127], rel=1e-4)
    levels = values[0] / scales[0]
    assert levels.tolist() == pytest.approx([127, -127, round(0.4 * 127), 0])
    assert values[1].eq(0).all()
    assert float((values - weight).abs().max()) <= 6 / 127 / 2 + 1e-4
    assert nearest(values, FORMS[8])[0].equal(values)


def test_four_bits_have_a_scale_a_stretch_that_cuts_off_what_is_rare():
    row = torch.cat([torch.full((63,), 0.22), torch.tensor([1.0]), torch.full((64,), 2.1)])
    values, scales = nearest(row[None], FORMS[4])
    assert scales.shape == (1, 2)
    assert float(scales[0, 0]) < 1 / 7, "a single number of 1 isn't worth errors of 63"
    assert float(scales[0, 1]) == pytest.approx(0.3, rel=0.01)
    assert float(values[0, 63]) == pytest.approx(7 * float(scales[0, 0]))
    as_wide = (row[:63] / (1 / 7)).round() / 7
    assert (values[0, :63] - row[:63]).square().sum() < (as_wide - row[:63]).square().sum()


@pytest.mark.parametrize("numbers, width", [(64, 64), (65, 33), (176, 59), (704, 64), (7, 7)])
def test_stretches_of_a_row_are_as_equal_as_can_be(numbers, width):
    assert FORMS[4].width(numbers) == width and FORMS[8].width(numbers) == numbers
    scales = nearest(torch.ones(2, numbers), FORMS[4])[1]
    assert scales.shape == (2, -(-numbers // width))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 1), (4, 2), (2, 3, 43)])
def test_what_is_packed_is_unpacked_rounded(bits, shape):
    weight, scales = nearest(
        torch.randn(shape, generator=torch.Generator().manual_seed(0)), FORMS[bits]
    )
    packed = pack({"a": weight, "b": weight}, {"a": Rounded(bits, scales)})
    assert packed["b"] is weight and set(packed) == {"b", "a" + LEVELS, "a" + SCALES}
    if bits == 4:
        assert packed["a" + LEVELS].numel() == -(-weight.numel() // 2)
        assert packed["a" + SCALES].element_size() == 2
    found, read = unpack(packed, {"a": list(shape)}, "file")
    assert torch.equal(found["a"], weight) and set(found) == {"a", "b"}
    assert read.keys() == {"a"} and read["a"].bits == bits
    assert torch.equal(read["a"].scales, scales)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_rounded_model_is_saved_small_and_loaded_as_it_was(bits, tmp_path):
    wide = {"output_size": 64, "linear_units": 256}
    model, plain = encoder(**wide), encoder(**wide)
    round_weights(model, bits)
    before = plain.state_dict()
    changed = {n for n, v in model.state_dict().items() if not v.equal(before[n])}
    assert changed == {
        n for n, p in model.named_parameters() if p.dim() > 1 and p.numel() >= LEAST_NUMBERS
    }
    loaded = load(save(model, tmp_path / "rounded"))
    with torch.no_grad():
        assert torch.equal(loaded(*features())[0], model(*features())[0])
    again = load_file(save(loaded, tmp_path / "again") / "model.safetensors")
    first = load_file(tmp_path / "rounded/model.safetensors")
    assert all(value.equal(again[name]) for name, value in first.items())
    sizes = [
        (save(m, tmp_path / "size") / "model.safetensors").stat().st_size for m in (model, plain)
    ]
    assert sizes[0] < {4: 0.25, 8: 0.37}[bits] * sizes[1]


def test_damaged_files_are_named(tmp_path):
    model = encoder()
    round_weights(model, 4)
    folder = save(model, tmp_path)
    description = json.loads((folder / "model.json").read_text())
    name = next(iter(description["rounded"]))
    description["rounded"][name][-1] += 4
    write_json(folder / "model.json", description)
    with pytest.raises(ModelError, match=f"{name}: .* levels and .* scales, .* don't make up"):
        load(folder)
    description["rounded"][name] = []
    write_json(folder / "model.json", description)
    with pytest.raises(ModelError, match=rf"{name}: .* levels and .* don't make up \[\]"):
        load(folder)
    round_weights(model, 8)
    save(model, folder)
    description = json.loads((folder / "model.json").read_text())
    write_json(folder / "model.json", {**description, "bits": 5})
    with pytest.raises(ModelError, match=r"bits: 5, expected one of \[4, 8\]"):
        load(folder)


def test_bits_that_are_not_known_are_named(tmp_path):
    model = encoder(output_size=64)
    round_weights(model, 8)
    folder = save(model, tmp_path)
    description = json.loads((folder / "model.json").read_text())
    write_json(folder / "model.json", {**description, "bits": 5})
    with pytest.raises(ModelError, match=r"model.json: bits: 5, expected one of \[4, 8\]"):
        load(folder)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    "part, changed",
    [
        (LEVELS, lambda levels: levels.float()),
        (LEVELS, lambda levels: levels.flatten()[0]),
        (SCALES, lambda scales: scales.to(torch.int32)),
    ],
    ids=["levels of another type", "one level", "scales of another type"],
)
def test_what_cannot_be_levels_or_scales_is_named(bits, part, changed):
    weight, scales = nearest(torch.ones(4, 6), FORMS[bits])
    packed = pack({"a": weight}, {"a": Rounded(bits, scales)})
    packed["a" + part] = changed(packed["a" + part])
    with pytest.raises(ModelError, match=r"file: a: .* don't make up \[4, 6\]; the file is dam"):
        unpack(packed, {"a": [4, 6]}, "file")


def test_a_shape_that_cannot_be_a_weights_is_named():
    weight, scales = nearest(torch.ones(4, 6), FORMS[4])
    with pytest.raises(ModelError, match=r"file: a: .* don't make up \[\]; the file is damaged"):
        unpack(pack({"a": weight}, {"a": Rounded(4, scales)}), {"a": []}, "file")


@pytest.mark.parametrize("bits", [4, 8])
def test_sparse_weights_are_rounded_at_their_places(bits, tmp_path):
    model = encoder(output_size=64, linear_units=256)
    plain = tmp_path / "plain"
    weights = [layer.feed_forward.w_1.weight for layer in model.encoders]
    generator = torch.Generator().manual_seed(0)
    for weight in weights:
        weight.data *= torch.rand(weight.shape, generator=generator) < 0.3
    round_weights(model, bits)
    save(model, plain)
    mark_sparse(model, weights)
    loaded = load(save(model, tmp_path / "sparse"))
    with torch.no_grad():
        assert torch.equal(loaded(*features())[0], model(*features())[0])
    again = load_file(save(loaded, tmp_path / "again") / "model.safetensors")
    first = load_file(tmp_path / "sparse/model.safetensors")
    assert all(value.equal(again[name]) for name, value in first.items())
    numbers = sum(weight.numel() for weight in weights)
    sizes = [(tmp_path / f"{n}/model.safetensors").stat().st_size for n in ("plain", "sparse")]
    kept = sum(int((weight != 0).sum()) for weight in weights)
    saved = numbers * bits / 8 - numbers / 8 - kept * bits / 8
    assert sizes[0] - sizes[1] == pytest.approx(saved, abs=600)  # names in the header
