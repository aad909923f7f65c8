"""Units ranked by scores from a file."""

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import encoder

from espnet_prune.budget import resolve
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.methods import make_method
from espnet_prune.surgery import cut, inject

WIDE = {"output_size": 32, "linear_units": 96, "num_blocks": 3}
UNITS = "block.0.feed_forward.units"


@pytest.fixture
def masks_of(tmp_path):
    """The masks by these scores of the feed-forward units."""

    def call(change=lambda scores: scores, target=0.2, tolerance=0.01):
        path = tmp_path / "scores.safetensors"
        options = {"importance": {"file": str(path)}, "budget": {"tolerance": tolerance}}
        method = make_method("importance", options, target=target)
        gated = inject(encoder(**WIDE), method).eval()
        sites = gated.site_map.of_kinds(("feed_forward_unit",))
        scores = {site.name: torch.arange(float(site.units)) for site in sites}
        save_file(change(scores), path)
        return gated, method.masks(gated)

    return call


def sparsity(gated, masks) -> float:
    return float(gated.budget.sparsity(gated.budget.hard(resolve(gated.site_map, masks))))


def test_the_lowest_scores_go_and_other_sites_stay(masks_of):
    gated, masks = masks_of()
    scored = gated.site_map.of_kinds(("feed_forward_unit",))
    gone = {site.name: int((masks[site.name] == 0).sum()) for site in scored}
    assert max(gone.values()) - min(gone.values()) <= 1 < min(gone.values())
    for site in scored:  # the scores rise with the index
        assert masks[site.name].tolist() == sorted(masks[site.name].tolist())
    others = [name for name in masks if name not in gone]
    assert others and all(bool(masks[name].all()) for name in others)
    assert sparsity(gated, masks) == pytest.approx(0.2, abs=0.005)
    cut(gated, masks)


def test_sites_that_are_too_small_for_the_target(masks_of):
    with pytest.raises(ConfigError, match=r"scored sites hold only .*the target is 95\.0%"):
        masks_of(target=0.95)


def test_heads_that_are_too_coarse_for_the_target_are_not_too_few(masks_of):
    heads = {f"block.{block}.attention.heads": torch.arange(4.0) for block in range(3)}
    gated, masks = masks_of(lambda _: heads, target=0.088, tolerance=0.001)
    assert all(masks[name].tolist() == [0, 0, 1, 1] for name in heads)
    assert sparsity(gated, masks) == pytest.approx(0.0844, abs=1e-4)
    held = sparsity(gated, {name: torch.zeros(4) for name in heads})
    message = f"the 3 scored sites hold only {held:.1%} .*the target is {held + 0.002:.1%}"
    with pytest.raises(ConfigError, match=message):
        masks_of(lambda _: heads, target=held + 0.002, tolerance=0.001)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: {"block.9": s[UNITS]}, ConfigError, "'block.9' is no site here"),
        (lambda s: {UNITS: s[UNITS][1:].clone()}, ConfigError, r"shape \(95,\).*its 96 units"),
        (lambda s: {UNITS: s[UNITS] / 0}, DataError, "not finite"),
        (lambda s: {}, ConfigError, "holds no scores"),
    ],
)
def test_scores_of_something_else_are_refused(masks_of, change, error, message):
    with pytest.raises(error, match=message):
        masks_of(change)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    path = tmp_path / "scores.safetensors"
    for text in (None, "no scores"):
        if text:
            path.write_text(text)
        options = {"importance": {"file": str(path)}}
        method = make_method("importance", options)
        with pytest.raises(DataError, match=f"{path}: not a readable"):
            method.masks(inject(encoder(), method))


def test_no_file_named():
    method = make_method("importance")
    with pytest.raises(ConfigError, match="importance: file"):
        method.masks(inject(encoder(), method))
