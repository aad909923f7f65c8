"""PruneNet: the reward in closed form, a policy that learns, its reach and its transfer."""

import pytest
import torch
from tiny_models import encoder

from espnet_prune.errors import ConfigError
from espnet_prune.methods import make_method
from espnet_prune.methods.prunenet import (
    LARGEST_REWARD,
    PolicyConfig,
    learned_policy,
    reward_of,
)
from espnet_prune.surgery import inject

UNITS = ["feed_forward_unit"]


def test_the_reward_is_the_inverse_of_the_largest_gap_of_the_spectra():
    matrix = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    spectrum = torch.linalg.svdvals(matrix)
    assert reward_of(spectrum, matrix) == LARGEST_REWARD
    assert reward_of(spectrum, matrix[2:, 2:]) == pytest.approx(2)  # 2 and 1: half lies above
    assert reward_of(spectrum, 10 * matrix) == pytest.approx(1)


def test_rows_that_keep_the_spectrum_become_more_probable():
    generator = torch.Generator().manual_seed(0)
    strong = torch.linalg.qr(torch.randn(4, 4, generator=generator))[0]
    weight = torch.cat([strong, 1e-3 * torch.randn(4, 4, generator=generator)])
    options = PolicyConfig(episodes=300, learning_rate=0.02)
    probabilities = learned_policy([weight], 0.5, options, seed=0)(weight).detach()
    assert float(probabilities[:4].min()) > float(probabilities[4:].max())


def test_feed_forwards_alone_go_by_the_same_share_up_to_what_they_hold():
    method = make_method("prunenet", {"policy": {"episodes": 1}}, target=0.3)
    gated = inject(encoder(output_size=32, linear_units=96), method).eval()
    masks = method.masks(gated)
    assert float(gated.budget.sparsity(gated.budget.hard(masks))) == pytest.approx(0.3, abs=0.005)
    shares = {float(m.mean()) for n, m in masks.items() if n.endswith(".units")}
    assert max(shares) - min(shares) < 0.03
    assert all(bool(m.all()) for n, m in masks.items() if n.endswith(("heads", "channels")))
    too_much = make_method("prunenet", target=0.9)
    with pytest.raises(ConfigError, match="target: 90.0%.*feed-forward units alone"):
        too_much.masks(inject(encoder(), too_much).eval())
    with pytest.raises(ConfigError, match="add feed_forward_unit"):
        make_method("prunenet", {"sites": ["head"]})


def test_a_policy_of_another_share_may_choose_and_the_seed_decides():
    def order(seed=0, **options):
        policy = {"episodes": 2, **options}
        method = make_method("prunenet", {"sites": UNITS, "policy": policy}, target=0.5, seed=seed)
        return torch.cat(list(method.order(inject(encoder(), method).eval()).values()))

    assert torch.equal(order(), order())
    assert not torch.equal(order(), order(seed=1))
    assert not torch.equal(order(), order(trained_at=0.9))
    assert torch.equal(order(), order(trained_at=0.5))
