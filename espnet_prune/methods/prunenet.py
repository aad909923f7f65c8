"""PruneNet: a policy learns which rows of the feed-forwards keep their singular values; no data.

"You Only Prune Once: Designing Calibration-Free Model Compression With Policy Learning", Sengupta
et al. 2025 (arXiv 2501.15296; code LCS2-IIITD/PruneNet). From the code: for the first matrix W
(units, inputs) of a feed-forward, one network for all layers gives sigmoid((W A + b) s), a
probability for each row; relaxed by logistic noise, it is what rows are drawn by, without
replacement, as many as shall stay. The reward is 1 / d, with d the Kolmogorov-Smirnov distance
between the singular values of W and of the rows drawn, discounted by 0.99 from layer to layer;
REINFORCE with AdamW, 0.001, 20 episodes.

Ours: at the end each layer keeps its most probable rows, which the code draws once more; one
network for each shape of matrix, where there are several; the noise of an update is that of the
draw. Feed-forward units alone go, the same share of each, and the sparsity still counts all sites
of the configuration, so large targets are out of reach. The policy transfers: trained at one share
(``trained_at``), it may choose for another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from espnet_prune.budget import keep_same_share, resolve
from espnet_prune.config import check_range
from espnet_prune.errors import ConfigError
from espnet_prune.methods.base import Method
from espnet_prune.methods.options import MethodConfig, UnitsConfig
from espnet_prune.sites import Site
from espnet_prune.sites.base import FEED_FORWARD_UNIT
from espnet_prune.surgery import GatedModel

DISCOUNT = 0.99  # their code
LARGEST_REWARD = 99999.0  # theirs, where the distance is 0
TINY = 1e-6


@dataclass(frozen=True)
class PolicyConfig:
    """How the policy is learned; the defaults are their code's.

    Attributes:
        episodes: each draws rows of every layer.
        learning_rate: learning rate of AdamW.
        trained_at: share of the rows that goes while it is learned; None for that of the target.
    """

    episodes: int = 20
    learning_rate: float = 0.001
    trained_at: float | None = None

    def __post_init__(self) -> None:
        check_range("policy: episodes", self.episodes, 1, 1e6)
        check_range("policy: learning_rate", self.learning_rate, 1e-8, 10)
        if self.trained_at is not None:
            check_range("policy: trained_at", self.trained_at, 0.01, 0.99)


@dataclass(frozen=True)
class PruneNetConfig(UnitsConfig):
    """Options of the learned policy.

    Attributes:
        policy: how it is learned.
    """

    policy: PolicyConfig = field(default_factory=PolicyConfig)


class PruneNet(Method):
    """Feed-forward units by a policy that looks at weights alone."""

    Config: ClassVar[type[MethodConfig]] = PruneNetConfig

    def check(self) -> None:
        """ConfigError where feed-forward units aren't among the sites."""
        if FEED_FORWARD_UNIT not in self.site_kinds:
            raise ConfigError(
                f"sites: {list(self.site_kinds)}: PruneNet chooses among feed-forward units; add "
                f"{FEED_FORWARD_UNIT}"
            )

    def masks(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The resolved masks of all sites.

        Raises:
            ConfigError: all feed-forward units together are less than the target.
        """
        self._check_reach(gated)
        scores, tolerance = self.order(gated), self.config.budget.tolerance
        return keep_same_share(scores, gated.budget, self.target, tolerance)

    def order(self, gated: GatedModel) -> Mapping[str, Tensor]:
        """The policy's probabilities (units,) for each feed-forward."""
        options, sites = self.config.policy, gated.site_map.of_kinds((FEED_FORWARD_UNIT,))
        held = float(gated.budget.sparsity(gated.budget.hard(_without(gated, sites))))
        gone = self.target / held if options.trained_at is None else options.trained_at
        shapes: dict[torch.Size, list[Site]] = {}
        for site in sites:
            shapes.setdefault(site.unit_weights()[0].shape, []).append(site)
        scores = {}
        for members in shapes.values():
            weights = [site.unit_weights()[0].detach().float().cpu() for site in members]
            policy = learned_policy(weights, 1 - min(gone, 1.0), options, self.seed)
            with torch.no_grad():
                scores |= {
                    site.name: policy(weight) for site, weight in zip(members, weights, strict=True)
                }
        return {site.name: scores[site.name] for site in sites}

    def _check_reach(self, gated: GatedModel) -> None:
        sites = gated.site_map.of_kinds((FEED_FORWARD_UNIT,))
        held = float(gated.budget.sparsity(gated.budget.hard(_without(gated, sites))))
        if held < self.target - self.config.budget.tolerance:
            raise ConfigError(
                f"target: {self.target:.1%}: PruneNet removes feed-forward units alone, which hold "
                f"only {held:.1%} of what is prunable here; lower it, or leave other kinds out of "
                "`sites`"
            )


def _without(gated: GatedModel, sites: Sequence[Site]) -> dict[str, Tensor]:
    return resolve(gated.site_map, {site.name: torch.zeros(site.units) for site in sites})


class Policy(nn.Module):
    """A probability for each row of a matrix.

    Args:
        rows: rows of the matrices.
        columns: likewise.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.project = nn.Linear(columns, rows)
        self.vector = nn.Parameter(torch.rand(rows))

    def forward(self, weight: Tensor) -> Tensor:
        """(rows, columns) -> (rows,)."""
        return torch.sigmoid(self.project(weight) @ self.vector)


def learned_policy(
    weights: Sequence[Tensor], share: float, options: PolicyConfig, seed: int
) -> Policy:
    """A policy learned on some layers' matrices.

    Args:
        weights: (rows, columns) each, of one shape, from the first layer to the last.
        share: how many of the rows are drawn.
        options: how it is learned.
        seed: seed of weights and draws.
    """
    rows, columns = weights[0].shape
    number = min(max(1, round(share * rows)), rows)
    spectra = [torch.linalg.svdvals(weight) for weight in weights]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = Policy(rows, columns)
        optimizer = torch.optim.AdamW(policy.parameters(), options.learning_rate)
        for _ in range(options.episodes):
            for layer, (weight, spectrum) in enumerate(zip(weights, spectra, strict=True)):
                probabilities = _relaxed(policy(weight))
                drawn = torch.multinomial(probabilities.detach(), number)
                reward = reward_of(spectrum, weight[drawn]) * DISCOUNT**layer
                loss = -reward * probabilities[drawn].log().sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return policy


def reward_of(spectrum: Tensor, rows: Tensor) -> float:
    """1 / Kolmogorov-Smirnov distance of the singular values of ``rows`` from ``spectrum``."""
    from scipy.stats import ks_2samp  # slow to import, and only this method wants it

    distance = ks_2samp(spectrum.numpy(), torch.linalg.svdvals(rows).numpy()).statistic
    return LARGEST_REWARD if distance == 0 else 1 / float(distance)


def _relaxed(probabilities: Tensor) -> Tensor:
    """The same with logistic noise on their logits."""
    noise = torch.rand_like(probabilities).clamp(TINY, 1 - TINY)
    return torch.sigmoid(noise.logit() + probabilities.clamp(TINY, 1 - TINY).logit()).clamp_min(
        TINY
    )
