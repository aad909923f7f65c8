"""Rows of systems.yaml with a ladder, and those taken from it."""

import pytest
from system_configs import read_system, system_config

from espnet_prune.config import load_yaml
from espnet_prune.errors import ConfigError
from espnet_prune.train.systems import SystemRow

KINDS = ("ladder", "l0")
WHOLE = """\
systems:
  l0_70:
    method: l0_distill
    target: 0.7
    seed: 4
    ladder: [0.3, 0.5]
    options: {gate_learning_rate: 0.1}
    training: {optim_conf: {lr: 0.1, weight_decay: 0.2}}
  plain: {method: l0, target: 0.5}
"""


def read(tmp_path, row: str) -> SystemRow:
    path = tmp_path / "systems.yaml"
    path.write_text(f"{WHOLE}  mine: {row}\n")
    return read_system(path, "mine")


def test_a_rung_has_all_but_its_size_from_the_run(tmp_path):
    row = "{taken_from: l0_70, target: 0.3, training: {optim_conf: {lr: 0.01}}}"
    expected = SystemRow(
        "l0_distill",
        target=0.3,
        seed=4,
        options={"gate_learning_rate": 0.1},
        training={"optim_conf": {"lr": 0.01, "weight_decay": 0.2}},
        taken_from="l0_70",
    )
    assert read(tmp_path, row) == expected


def test_a_rung_is_made_of_the_same_and_finished_alike(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text(
        "systems:\n"
        "  plain: {method: unpruned, target: 0.0}\n"
        "  run: {of: plain, method: l0, target: 0.7, ladder: [0.3], as_cut: true, bits: 4}\n"
        "  mine: {taken_from: run, target: 0.3}\n"
    )
    row = read_system(path, "mine")
    assert (row.of, row.as_cut, row.bits, row.ladder) == ("plain", True, 4, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{method: l0, target: 0.5, ladder: [0.3, 0.6]}", "ladder: 0.6 is not below the target"),
        ("{method: l0, target: 0.5, ladder: [0.4, 0.3]}", "ladder: 0.3 comes after 0.4"),
        ("{method: l0, target: 0.5, ladder: [0.0, 0.3]}", "ladder: 0 is no sparsity"),
        ("{method: l0, target: 0.5, ladder: []}", "ladder: it is empty; name smaller targets"),
        ("{method: l0, target: 0.5, ladder: 0.3}", "ladder: a list was expected, not 0.3"),
        ("{method: l0, target: 0.5, ladder: [a]}", r"ladder\[0\]: float was expected, not 'a'"),
        ("{method: magnitude, ladder: [0.3]}", "magnitude learns no masks.*l0_distill or l0"),
        ("{method: self_pinching, ladder: [0.3]}", "self_pinching gives one size a run"),
        ("{method: nas, ladder: [0.3]}", "nas gives one size a run"),
        ("{taken_from: l0_7, target: 0.3}", "no system 'l0_7' .did you mean 'l0_70'"),
        ("{taken_from: [plain], target: 0.3}", r"no system '\['plain'\]'"),
        ("{taken_from: plain, target: 0.3}", r"'plain' has no ladder.*`ladder: \[0.3\]`"),
        ("{taken_from: mine, target: 0.3}", "'mine' has no ladder"),
        ("{taken_from: l0_70, target: 0.4}", r"0.4 is no rung of 'l0_70'; choose.*\[0.3, 0.5\]"),
        ("{taken_from: l0_70, target: 0.7}", "0.7 is no rung"),
        ("{taken_from: l0_70}", r"target: it is missing; choose one of \[0.3, 0.5\]"),
        (
            "{taken_from: l0_70, target: 0.3, seed: 1}",
            "seed: a system that is taken.*leave the key",
        ),
        ("{taken_from: l0_70, target: 0.3, meth: l0}", "meth: .*keys of its own are"),
    ],
)
def test_what_is_wrong_is_named_with_file_row_and_remedy(tmp_path, row, message):
    with pytest.raises(ConfigError, match=f"systems.yaml: mine: .*{message}"):
        read(tmp_path, row)


def test_the_method_gets_the_rungs_with_their_updates():
    row = {"method": "l0_distill", "target": 0.7, "ladder": [0.3, 0.5]}
    method = system_config(row, prune={"num_iters_per_epoch": 10, "max_epoch": 3}).build_method()
    assert [(r.target, r.updates) for r in method.schedule.rungs] == [
        (0.3, 10), (0.5, 20), (0.7, 30),
    ]  # fmt: skip


def test_updates_are_those_of_several_batches_each():
    training = {"num_iters_per_epoch": 9, "max_epoch": 4, "accum_grad": 2}
    stage = system_config({"method": "magnitude"}, finetune=training).finetune
    assert (stage.updates_an_epoch, stage.updates) == (4, 16)


def test_the_shared_file_has_a_run_of_its_own_beside_every_rung(repository):
    path = repository / "conf/systems/ladder.yaml"
    systems = {name: read_system(path, name) for name in load_yaml(path)["systems"]}
    sizes = {kind: {s.target for n, s in systems.items() if n.startswith(kind)} for kind in KINDS}
    assert sizes["ladder"] == sizes["l0"] == {*systems["ladder_70"].ladder, 0.7}
    for name, system in systems.items():
        assert name.endswith(f"_{100 * system.target:.0f}")
        assert (system.taken_from is None) == (name == "ladder_70" or name.startswith("l0"))
        assert (system.method, system.seed) == ("l0_distill", 0)
