"""Rows that prune another system's model: read, resolved, and refused until that is there."""

from dataclasses import replace

import pytest
from system_configs import read_system, system_config
from tiny_models import encoder

from espnet_prune.errors import ConfigError, DataError
from espnet_prune.methods import make_method
from espnet_prune.surgery import cut, inject, plan_of
from espnet_prune.train.stages import run_stage
from espnet_prune.train.system_config import write_config

ROWS = """\
systems:
  plain: {method: unpruned, target: 0.0}
  mine: {of: plain, method: magnitude, as_cut: true}
  wrong: {of: mine, method: magnitude}
  near: {of: plai, method: magnitude}
  small: {of: plain, bits: 8}
  few: {of: plain, method: unpruned, target: 0.0, bits: 5}
  run: {of: plain, method: l0, target: 0.7, ladder: [0.3]}
  rung: {taken_from: run, target: 0.3}
  of_rung: {of: rung, bits: 4}
"""


def test_a_row_names_the_system_that_it_is_made_of(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text(ROWS)
    row = read_system(path, "mine")
    assert (row.of, row.as_cut) == ("plain", True)
    few = read_system(path, "small")
    assert (few.of, few.method, few.target, few.as_cut, few.bits) == (
        "plain",
        "unpruned",
        0,
        True,
        8,
    )
    with pytest.raises(ConfigError, match="wrong: of: 'mine' is no system that is made of the tea"):
        read_system(path, "wrong")
    with pytest.raises(ConfigError, match="of_rung: of: 'rung' is no system that is made of the t"):
        read_system(path, "of_rung")
    with pytest.raises(ConfigError, match=r"few: bits: 5; choose one of \[4, 8\]"):
        read_system(path, "few")
    with pytest.raises(ConfigError, match="near: of: 'plai' .*did you mean 'plain'"):
        read_system(path, "near")


def test_what_is_not_there_yet_is_named_with_the_command(tmp_path):
    config = system_config({"method": "magnitude"}, tmp_path)
    assert config.pruned == tmp_path / "teacher/model"
    system = tmp_path / "mine"
    write_config(system, replace(config, origin=tmp_path / "plain"))
    with pytest.raises(DataError, match="plain/model: no such folder.*--systems plain"):
        run_stage("prune", system, ngpu=0)


def test_a_model_of_which_nothing_was_cut_can_be_pruned_like_the_dense_one():
    unpruned, magnitude = make_method("unpruned", target=0.0), make_method("magnitude")
    gated = inject(encoder(), unpruned).eval()
    whole = cut(gated, unpruned.masks(gated))
    assert plan_of(whole).is_whole
    again = inject(whole, magnitude).eval()
    small = cut(again, magnitude.masks(again))
    assert (
        not plan_of(small).is_whole and plan_of(small).sites.keys() == plan_of(whole).sites.keys()
    )
