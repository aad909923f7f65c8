"""Mappings and losses of distillation on problems with known answers."""

import pytest
import torch

from espnet_prune.distill import (
    DistillConfig,
    LayerwiseDistillation,
    choose,
    default_teacher_layers,
    kl_loss,
    layer_loss,
    length_mask,
    near_tokens,
)
from espnet_prune.distill.mapping import fixed, monotone, roomy
from espnet_prune.errors import ConfigError


def test_default_layers_are_the_quarters():
    assert default_teacher_layers(12) == (2, 5, 8, 11)
    assert default_teacher_layers(6) == (1, 2, 3, 5)
    assert default_teacher_layers(1) == (0,)


def test_fixed_takes_the_nearest_kept_block_below():
    assert fixed([2, 5, 8, 11], [0, 3, 5, 9]) == [0, 2, 2, 3]
    assert fixed([0], [4, 5]) == [0]


def test_argmin_takes_the_nearest():
    distances = torch.tensor([[3.0, 1.0, 2.0], [0.5, 2.0, 2.0]])
    assert choose("argmin", distances, [0, 1], [0, 1, 2]) == [1, 0]


def test_monotone_keeps_the_order_where_argmin_does_not():
    distances = torch.tensor([[9.0, 9.0, 1.0], [9.0, 1.0, 2.0]])
    assert choose("argmin", distances, [0, 1], [0, 1, 2]) == [2, 1]
    columns = monotone(distances)
    assert columns[0] < columns[1] == 1


def test_roomy_leaves_room_for_lower_layers_and_monotone_does_not():
    distances = torch.tensor([[5.0, 1.0, 1.0], [5.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    assert roomy(distances) == [0, 1, 2]
    assert monotone(distances) == [0, 0, 0]


def test_roomy_with_fewer_blocks_than_layers_shares_the_lowest():
    assert roomy(torch.rand(4, 2))[-1] == 1
    assert set(roomy(torch.rand(4, 2))) <= {0, 1}


def test_monotone_chooses_only_among_eligible_blocks():
    distances = torch.zeros(2, 4)
    distances[:, 0] = -1.0
    assert choose("monotone", distances, [1, 3], [0, 1, 2, 3], eligible=[1, 2]) == [1, 1]
    assert choose("roomy", distances, [1, 3], [0, 1, 2, 3], eligible=[1, 2]) == [1, 2]


@pytest.mark.parametrize(
    "context, near",
    [(0, [[3], [0]]), (1, [[2, 3, 4], [0, 1]]), (9, [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3]])],
)
def test_frames_near_tokens_are_within_the_context_and_the_recording(context, near):
    logits = torch.zeros(2, 6, 3)
    logits[..., 0] = 1.0
    logits[0, 3, 2] = logits[1, 0, 1] = logits[1, 5, 1] = 2.0  # the last one is padding
    found = near_tokens(logits, length_mask(torch.tensor([6, 4]), 6), context)
    assert [torch.where(row)[0].tolist() for row in found] == near


def test_equal_states_cost_nothing():
    states = torch.randn(2, 5, 4)
    valid = length_mask(torch.tensor([5, 3]), 5)
    for kind in ("mse", "l1_cosine"):
        assert float(layer_loss(kind, states, states, valid)) == pytest.approx(0.0, abs=1e-6)


def test_padding_does_not_matter():
    student, teacher = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    valid = length_mask(torch.tensor([5, 3]), 5)
    before = layer_loss("mse", student, teacher, valid)
    student[1, 3:] = 99.0
    assert torch.equal(layer_loss("mse", student, teacher, valid), before)


def test_mse_is_the_mean_square_over_the_variance():
    student, teacher = torch.zeros(1, 3, 2), torch.tensor([[[1.0, 5.0], [3.0, 1.0], [9.0, 9.0]]])
    valid = torch.tensor([[True, True, False]])
    mean_square, variance = (1 + 25 + 9 + 1) / 4, (1 + 4 + 1 + 4) / 4
    found = float(layer_loss("mse", student, teacher, valid))
    assert found == pytest.approx(mean_square / variance)
    scaled = layer_loss("mse", student, 7 * teacher, valid)
    assert float(scaled) == pytest.approx(found), "whatever the teacher's scale"
    means = teacher[:, :2].mean(dim=1, keepdim=True).expand(1, 3, 2)
    assert float(layer_loss("mse", means, teacher, valid)) == pytest.approx(1.0)


def test_l1_cosine_is_over_the_mean_absolute_deviation():
    student, teacher = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]), torch.tensor([[[3.0, 4.0]] * 2])
    teacher = teacher * torch.tensor(
        [[[1.0], [3.0]]]
    )  # (3, 4), (9, 12), of which the mean is (6, 8)
    valid = torch.ones(1, 2, dtype=torch.bool)
    absolute = (0 + 4 + 9 + 8) / 4 / ((3 + 4 + 3 + 4) / 4)
    cosine = (3 / 5 + 4 / 5) / 2
    found = layer_loss("l1_cosine", student, teacher, valid)
    assert float(found) == pytest.approx(absolute + 1 - cosine)


def test_layers_are_averaged_or_added():
    states = [torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    teacher = [
        torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(9 + i)) for i in range(4)
    ]
    valid = torch.ones(1, 6, dtype=torch.bool)
    mean, total = (
        LayerwiseDistillation(DistillConfig(sum_layers=s), 4, 4)(states, teacher, valid, range(4))
        for s in (False, True)
    )
    assert float(total.detach()) == pytest.approx(4 * float(mean.detach()))
    assert float(mean.detach()) == pytest.approx(
        sum(float(layer_loss("mse", s, t, valid)) for s, t in zip(states, teacher, strict=True))
        / 4,
        rel=1e-5,
    )


def test_kl_has_the_closed_form_value():
    student = torch.log(torch.tensor([[[0.5, 0.5]]]))
    teacher = torch.log(torch.tensor([[[0.25, 0.75]]]))
    valid = torch.ones(1, 1, dtype=torch.bool)
    expected = 0.25 * torch.log(torch.tensor(0.5)) + 0.75 * torch.log(torch.tensor(1.5))
    assert float(kl_loss(student, teacher, valid, 1.0)) == pytest.approx(float(expected), abs=1e-6)


def test_linear_map_starts_at_the_identity():
    module = LayerwiseDistillation(DistillConfig(mapping="fixed"), 4, 8)
    states = [torch.randn(2, 6, 8) for _ in range(4)]
    valid = torch.ones(2, 6, dtype=torch.bool)
    assert float(module(states, states, valid, [0, 1, 2, 3]).detach()) == pytest.approx(0, abs=1e-9)


def test_the_nearest_block_is_the_nearest_behind_the_linear_map():
    module = LayerwiseDistillation(DistillConfig(mapping="argmin", teacher_layers=(1,)), 2, 4)
    states = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(1, 6, dtype=torch.bool)
    with torch.no_grad():
        module.map.weight.neg_()  # so that the first of the student's blocks is the teacher's
        loss = module([-states, 0.9 * states], {1: states}, valid, [0, 1])
    assert float(loss) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "option, value",
    [
        ("mapping", "monoton"),
        ("layer_loss", "l2"),
        ("temperature", 0.0),
        ("ctc_weight", -1.0),
        ("teacher_layers", (5, 2)),
        ("teacher_layers", (2, 2)),
        ("teacher_layers", (-1, 2)),
    ],
)
def test_wrong_options_are_named(option, value):
    with pytest.raises(ConfigError, match=option):
        DistillConfig(**{option: value})


def test_a_loss_of_no_parts_is_refused_and_one_part_is_enough():
    names = ("label_weight", "layer_weight", "ctc_weight", "attention_weight")
    nothing = dict.fromkeys(names, 0.0)
    with pytest.raises(ConfigError, match="all weights are 0"):
        DistillConfig(**nothing)
    for name in names:
        assert getattr(DistillConfig(**{**nothing, name: 0.5}), name) == 0.5


def test_a_teacher_layer_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="12"):
        LayerwiseDistillation(DistillConfig(teacher_layers=(12,)), 12, 8)
