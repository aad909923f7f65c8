"""Module-wise pruning error: units ranked by measured errors for what they cost."""

import json

import pytest
import torch
from tiny_models import encoder

from espnet_prune.errors import ConfigError, DataError
from espnet_prune.methods import make_method, method_config
from espnet_prune.methods.module_error import module_scores, rising_slopes
from espnet_prune.surgery import cut, inject

WIDE = {"output_size": 32, "linear_units": 96, "num_blocks": 3}
FEED_FORWARD, HEADS = "block.0.feed_forward.units", "block.0.attention.heads"


def method_of(path="", target: float = 0.5, measure: str = "loss", **options):
    options["module_error"] = {"file": str(path), "measure": measure}
    return make_method("module_error", options, target=target)


def gated_of(method=None):
    return inject(encoder(**WIDE), method or method_of()).eval()


def measured(gated, errors=None) -> dict:
    """A result in which a unit costs an error of its own size, but for the sites in ``errors``."""
    sites = {}
    for name in gated.gate_names():
        site = gated.site_map.sites[name]
        if site.units == 1:
            continue
        numbers = (site.units // 2, site.units)
        found = (errors or {}).get(name) or tuple(float(number) for number in numbers)
        removals = [
            {"removed": number, "loss_change": error, "wer_change": -error}
            for number, error in zip(numbers, found, strict=True)
        ]
        mean = float(site.magnitudes().mean())
        sites[name] = {"units": site.units, "mean_magnitude": mean, "removals": removals}
    return {"schema": 1, "sites": sites}


@pytest.fixture
def write(tmp_path):
    """Writes a result; returns its path."""

    def to_file(result) -> str:
        path = tmp_path / "sensitivity.json"
        path.write_text(json.dumps(result))
        return path

    return to_file


def test_slopes_are_the_errors_for_what_is_saved():
    assert rising_slopes([1, 4], [10, 40], [5.0, 65.0]) == [0.5, 2.0, 2.0, 2.0]


def test_what_hurts_less_after_what_hurts_more_is_joined_with_it():
    assert rising_slopes([2, 4], [20, 40], [10.0, 12.0]) == [0.3] * 4
    assert rising_slopes([1, 2, 3], [1, 2, 3], [1.0, 4.0, 5.0]) == [1.0, 2.0, 2.0]
    assert rising_slopes([1, 2, 3], [1, 2, 3], [3.0, 4.0, 3.0]) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("target", [0.3, 0.7])
@pytest.mark.parametrize("measure", ["parameters", "macs"])
def test_the_target_is_reached_and_can_be_cut(write, target, measure):
    path = write(measured(gated_of()))
    method = method_of(path, target, budget={"measure": measure})
    gated = gated_of(method)
    masks = method.masks(gated)
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(target, abs=method.config.budget.tolerance)
    cut(gated, masks)


def test_a_site_that_nothing_is_lost_without_goes_first_and_the_dearest_stays(write):
    plain = gated_of()
    path = write(measured(plain, {FEED_FORWARD: (0.0, 0.0), HEADS: (1e6, 2e6)}))
    masks = method_of(path, target=0.3).masks(plain)
    assert masks[FEED_FORWARD].mean() < 0.1  # single units return where a channel is too much
    assert masks[HEADS].all()
    masks = method_of(path, target=0.3, measure="wer").masks(plain)  # the signs are reversed
    assert not masks[HEADS].any()


def test_within_a_site_the_least_magnitudes_go_first(write):
    gated = gated_of()
    scores = module_scores(gated, write(measured(gated)), "loss_change")
    for name, score in scores.items():
        magnitudes = gated.site_map.sites[name].magnitudes()
        assert torch.equal(torch.argsort(score), torch.argsort(magnitudes, stable=True))
    every = torch.cat(list(scores.values())).sort().values
    assert torch.equal(every, torch.arange(len(every), dtype=torch.float64))


def test_errors_of_something_else_are_refused(write):
    gated = gated_of()
    result = measured(gated)

    def refused(message, **changes):
        sites = {**result["sites"], HEADS: {**result["sites"][HEADS], **changes}}
        with pytest.raises(ConfigError, match=message):
            method_of(write({**result, "sites": sites})).masks(gated)

    refused("attention.heads' was measured on another model .5 units", units=5)
    refused("another model", mean_magnitude=0.123)
    refused("never removed as a whole", removals=result["sites"][HEADS]["removals"][:1])
    del result["sites"][HEADS]
    with pytest.raises(ConfigError, match="nothing was measured of .*heads.*`head` among"):
        method_of(write(result)).masks(gated)


def test_a_file_must_be_named_and_be_there(write, tmp_path):
    method = make_method("module_error")
    with pytest.raises(ConfigError, match="name its sensitivity.json"):
        method.masks(gated_of(method))
    with pytest.raises(DataError, match="no such file"):
        method_of(tmp_path / "none.json").masks(gated_of())
    with pytest.raises(DataError, match="the result of .*sensitivity` was expected"):
        method_of(write({"dense": 1})).masks(gated_of())


@pytest.mark.parametrize(
    "options, named",
    [
        ({}, "the key 'file' is missing"),
        ({"file": "x", "measure": "los"}, "did you mean 'loss'"),
        ({"fil": "x"}, "did you mean 'file'"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ConfigError, match=named):
        method_config("module_error", {"module_error": options}, "prune.yaml: method")
