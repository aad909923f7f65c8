"""Straight-through gates: exactly 0 or 1, a gradient of 1, and no noise that shifts others'."""

import torch

from espnet_prune.gates.straight_through import StraightThroughGate


def test_masks_are_the_signs_of_the_scores_and_gradients_pass():
    gate = StraightThroughGate(3)
    with torch.no_grad():
        gate.scores.copy_(torch.tensor([0.5, -0.1, 0.0]))
    mask = gate.sample(torch.empty(gate.noise_units))
    assert mask.tolist() == [1.0, 0.0, 0.0]
    assert gate.deterministic(0.2).tolist() == [1.0, 1.0, 1.0]
    mask.sum().backward()
    assert gate.scores.grad.tolist() == [1.0, 1.0, 1.0]


def test_no_noise_is_drawn():
    assert StraightThroughGate(3).noise_units == 0
