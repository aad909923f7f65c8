"""Weights in few bits: levels in closed form, files that are as small as they should be."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import encoder, features

from espnet_prune.errors import ModelError
from espnet_prune.io_atomic import write_json
from espnet_prune.surgery import load, save
from espnet_prune.surgery.rounding import (
    LEAST_NUMBERS,
    LEVELS,
    SCALES,
    levels_of,
    pack,
    round_weights,
    rounded,
    unpack,
)
from espnet_prune.surgery.sparse import mark_sparse


@pytest.mark.parametrize("bits, most", [(4, 7), (8, 127)])
def test_levels_are_whole_shares_of_the_largest_number_of_a_row(bits, most):
    weight = torch.tensor([[1.0, -1.0, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0], [3.0, -6.0, 0.1, 6.0]])
    levels, scales = levels_of(weight, bits)
    assert scales[:, 0].tolist() == pytest.approx([1 / most, 0, 6 / most], rel=1e-4)
    assert levels[0].tolist() == [most, -most, round(0.4 * most), 0] and levels[1].eq(0).all()
    assert float((rounded(weight, bits) - weight).abs().max()) <= 6 / most / 2 + 1e-4
    assert rounded(rounded(weight, bits), bits).equal(rounded(weight, bits))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 1), (4, 2)])
def test_what_is_packed_is_unpacked_rounded(bits, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    packed = pack({"a": weight, "b": weight}, bits, ["a"])
    assert packed["b"] is weight and set(packed) == {"b", "a" + LEVELS, "a" + SCALES}
    if bits == 4:
        assert packed["a" + LEVELS].numel() == -(-weight.numel() // 2)
    found = unpack(packed, bits, {"a": list(shape)}, "file")
    assert torch.equal(found["a"], rounded(weight, bits)) and set(found) == {"a", "b"}


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
    with pytest.raises(ModelError, match=f"{name}: .* levels and .* scales don't make up"):
        load(folder)


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
