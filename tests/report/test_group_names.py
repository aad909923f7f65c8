"""What groups of systems are called."""

import pytest
from made_up_experiment import edit, make_system

from espnet_prune.report.collect import collect
from espnet_prune.report.group_names import common_name, told_apart
from espnet_prune.report.tables import seed_rows


@pytest.mark.parametrize(
    ("names", "method", "expected"),
    [
        (["l0_30", "l0_50"], "l0_distill", "l0 (l0_distill)"),
        (["l0_units_70", "l0_units_70_s1"], "l0_distill", "l0_units (l0_distill)"),
        (["nas_70", "nas_70_s1"], "nas", "nas"),
        (["a_70", "b_70"], "nas", "nas"),
        (["a_70"], "nas", "a_70 (nas)"),
    ],
)
def test_a_group_is_called_what_its_members_names_begin_with(names, method, expected):
    assert common_name(names, method) == expected


def test_groups_of_one_name_have_their_members_behind_it():
    labels = told_apart(["a", "b", "a"], [["a_1", "a_2"], ["b_1"], ["a_3"]])
    assert labels == ["a: a_1, a_2", "b", "a: a_3"]


def seed_labels(experiment) -> list[str]:
    return [label for label, *_ in seed_rows([collect(experiment, "made_up")], ["test/joint"])]


def test_seeds_of_two_targets_and_options_are_called_after_their_systems(tmp_path):
    settled = {"options": {"gate": {"settle_fraction": 0.4}}}
    for name, target, record in (("l0_70", 0.704, {}), ("l0_units_70", 0.7, settled)):
        for seed in (0, 1):
            system = f"{name}_s{seed}" if seed else name
            make_system(tmp_path, system, "l0_distill", seed)
            edit(tmp_path / system / "system.json", target=target, row=record)
    assert seed_labels(tmp_path) == [
        "l0 (l0_distill) at 70.4%, 2 seeds",
        "l0_units (l0_distill) at 70%, 2 seeds",
    ]


def test_no_two_rows_of_seeds_have_one_name(tmp_path):
    other = {"options": {"layer_weight": 0.0}}
    for seed, record in enumerate(({}, {}, other, other)):
        make_system(tmp_path, f"l0_50_s{seed}", "l0_distill", seed)
        edit(tmp_path / f"l0_50_s{seed}" / "system.json", row=record)
    assert seed_labels(tmp_path) == [
        "l0_50_s (l0_distill) at 50%, 2 seeds: l0_50_s0, l0_50_s1",
        "l0_50_s (l0_distill) at 50%, 2 seeds: l0_50_s2, l0_50_s3",
    ]
