"""The shared file of systems side by side: read strictly, pairs of targets, defaults as it says."""

from dataclasses import replace
from pathlib import Path

import pytest
from system_configs import read_system

from espnet_prune.config import load_yaml
from espnet_prune.methods import METHODS, make_method, method_config
from espnet_prune.sites import DecoderConfig

FOLDER = Path(__file__).resolve().parents[2] / "conf/systems"
FILE = FOLDER / "alternatives.yaml"
WITH_DECODER = FOLDER / "with_decoder.yaml"
NAMES = list(load_yaml(FILE)["systems"])


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_read_strictly_and_names_its_target(name):
    system = read_system(FILE, name)
    assert name.endswith(f"_{100 * system.target:.0f}")
    config = method_config(system.method, system.options, name)
    if name.startswith("l0_units_"):
        assert "branch" not in config.sites and config.gate.settle_fraction == 0.4
    else:
        assert config == METHODS[system.method].Config()


def test_every_method_is_there_at_both_targets():
    systems = [read_system(FILE, name) for name in NAMES]
    methods = {system.method for system in systems}
    assert {(s.method, s.target) for s in systems} == {(m, t) for m in methods for t in (0.5, 0.7)}
    assert methods >= {"l0_distill", "fisher", "layer_drop", "folding", "nas"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_every_row_of_every_file_is_read_strictly(path):
    for name in load_yaml(path)["systems"]:
        system = read_system(path, name)
        if system.taken_from is None:
            make_method(system.method, system.options, target=system.target)


def test_seeds_differ_from_the_row_beside_the_alternatives_by_the_seed_alone():
    path = FOLDER / "seeds_70.yaml"
    for name in load_yaml(path)["systems"]:
        row, _, seed = name.partition("_seed")
        system = read_system(path, name)
        assert system.seed == int(seed or 0)
        assert replace(system, seed=0) == read_system(FILE, row)


@pytest.mark.parametrize("name", load_yaml(WITH_DECODER)["systems"])
def test_rows_with_the_decoder_say_so(name):
    system = read_system(WITH_DECODER, name)
    config = method_config(system.method, system.options, name)
    assert system.target == 0.5
    assert config.decoder == (DecoderConfig() if "_decoder_" in name else None)
    assert config.budget.measure == ("macs" if "_macs_" in name else "parameters")
