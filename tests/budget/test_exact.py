"""The exact controller: never past its target, in few updates or many, at any scale of the loss."""

import math

import pytest
import torch

from espnet_prune.budget import CostTerm, Exact, TargetSchedule
from espnet_prune.budget.expected import ExpectedSize
from espnet_prune.gates import HardConcreteConfig, HardConcreteGate

UNITS, LARGE, FACTOR = 600, 60, 20.0
WARMUP = 0.4


class Toy:
    """Units of known worth and cost, of which the best for their cost have to stay.

    A tenth are twenty times as large as the others. Closing a unit costs its worth; gradients are
    mostly noise, as a batch's are.
    """

    def __init__(self, updates: int, scale: float, order: str = "none", noise: float = 1.0) -> None:
        self.generator = torch.Generator().manual_seed(1)
        worth = (1.5 * torch.randn(UNITS, generator=self.generator)).exp()
        self.cost = torch.where(torch.arange(UNITS) < LARGE, FACTOR, 1.0)
        self.worth = worth * self.cost
        self.gate = HardConcreteGate(UNITS, HardConcreteConfig(order=order), updates=updates)
        self.updates, self.scale, self.noise = updates, scale, noise
        self.before = None
        self._felt = 0.0

    def sparsity(self, probabilities: torch.Tensor) -> torch.Tensor:
        return 1 - (probabilities.double() * self.cost).sum() / self.cost.sum()

    def sparsity_moved(self, amount: float) -> float:
        return float(self.sparsity(self.gate.moved(amount)))

    def move(self, amount: float) -> None:
        self.gate.move(amount)

    def mean_step(self) -> float:
        return float((self.gate.log_alpha.detach() - self.before).abs().mean())

    def felt(self) -> float:
        return self._felt

    def loss(self) -> torch.Tensor:
        mask = self.gate.sample(torch.rand(UNITS, generator=self.generator))
        mask.register_hook(self._feel)
        noise = self.noise * torch.randn(UNITS, generator=self.generator) * self.worth.sqrt()
        return self.scale * ((self.worth + noise) * (1 - mask)).mean()

    def _feel(self, gradient: torch.Tensor) -> None:
        self._felt = float(gradient.abs().sum())

    def train(self, target: float, rate: float = 0.1) -> list[float]:
        """The expected sparsity after each update."""
        controller = Exact()
        schedule = TargetSchedule(target, round(WARMUP * self.updates))
        start = float(self.sparsity(self.gate.probabilities().detach()))
        optimizer = torch.optim.Adam([self.gate.log_alpha], lr=rate)
        found = []
        for update in range(self.updates):
            self.before = self.gate.log_alpha.detach().clone()
            size = self.sparsity(self.gate.probabilities())
            (self.loss() + controller(size, schedule.at(update, start))).backward()
            optimizer.step()
            optimizer.zero_grad()
            self.gate.project()
            controller.hold(self)
            found.append(self.sparsity_moved(0.0))
        return found

    def lost(self, order: torch.Tensor, target: float) -> float:
        """Share of all worth that goes when the first of an order go."""
        gone = self.cost[order].cumsum(0) <= target * self.cost.sum()
        return float(self.worth[order][gone].sum() / self.worth.sum())


@pytest.mark.parametrize("updates", [200, 600])
@pytest.mark.parametrize("target", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_it_is_never_past_the_target_and_ends_at_it(updates, target, scale):
    found = Toy(updates, scale).train(target)
    after = found[round(WARMUP * updates) + 1 :]
    assert max(after) - target < 1e-3
    assert abs(found[-1] - target) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_ten_thousand_updates_are_as_exact(scale):
    found = Toy(10000, scale).train(0.7)
    assert max(found[4001:]) - 0.7 < 1e-3


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("target", [0.3, 0.5, 0.7])
def test_what_goes_is_what_is_worth_least_for_its_cost(target, scale):
    toy = Toy(400, scale)
    toy.train(target)
    best = toy.lost(torch.argsort(toy.worth / toy.cost), target)
    learned = toy.lost(torch.argsort(toy.gate.log_alpha.detach()), target)
    chance = toy.lost(torch.randperm(UNITS, generator=torch.Generator().manual_seed(0)), target)
    assert learned - best < 0.15 * (chance - best)


def test_the_price_settles_where_the_optimiser_keeps_the_size_by_itself():
    """Open is what is worth more, for its share of the size, than the unit at the edge."""
    toy = Toy(1000, 1.0, noise=0.0)
    toy.train(0.5)
    order = torch.argsort(toy.worth / toy.cost)
    marginal = order[int((toy.cost[order].cumsum(0) <= 0.5 * toy.cost.sum()).sum())]
    each = toy.worth / UNITS / (toy.cost / toy.cost.sum())  # loss for each share of the size
    opened = toy.gate.probabilities() > 0.5
    assert float(each[opened].min()) > 0.5 * float(each[marginal])
    assert float(each[~opened].max()) < 2 * float(each[marginal])


def test_a_scaled_loss_has_the_same_price():
    """Gradients are multiplied against underflow on a GPU; what they say isn't."""
    prices = []
    for factor in (1.0, 1024.0):
        toy, controller = Toy(1, 1.0), Exact()
        toy.before = toy.gate.log_alpha.detach().clone()
        size = toy.sparsity(toy.gate.probabilities())
        (factor * (toy.loss() + controller(size, 0.1))).backward()
        controller.hold(toy)
        prices.append(float(controller.values()["price"]))
    assert prices[0] == pytest.approx(prices[1])


def test_settled_gates_stay():
    gate = HardConcreteGate(4, HardConcreteConfig(settle_fraction=0.5), updates=2)
    gate.advance(1)
    before = gate.log_alpha.detach().clone()
    gate.move(-3.0)
    assert torch.equal(gate.log_alpha, before)
    assert torch.equal(gate.moved(-3.0), gate.probabilities())


class Places:
    """A structure with what a Conformer has: a reader, a branch in a block."""

    class Site:
        def __init__(self, name, kind, units, parent=None, reader=None) -> None:
            self.name, self.kind, self.units = name, kind, units
            self.parent, self.reader = parent, reader

    def __init__(self) -> None:
        sites = (
            self.Site("first", "front_end_channel", 3, reader="second"),
            self.Site("second", "front_end_channel", 4),
            self.Site("block.heads", "head", 2, "block.attention"),
            self.Site("block.attention", "branch", 1, "block"),
            self.Site("block", "block", 1),
        )
        self.sites = {site.name: site for site in sites}
        self.children = {name: [] for name in self.sites}
        for site in sites:
            if site.parent:
                self.children[site.parent].append(site.name)
        self.terms = [
            CostTerm(10, 10, ("first",)),
            CostTerm(7, 70, ("first", "second")),
            CostTerm(5, 5, ("block.heads",)),
            CostTerm(3, 3, ("block.attention",)),
            CostTerm(2, 2, ("block",)),  # such as a norm of the block itself
        ]


@pytest.mark.parametrize("measure", ["parameters", "macs"])
def test_expected_sizes_are_the_mean_over_all_outcomes(measure):
    """Every combination of open and closed units, weighed by its probability."""
    places = Places()
    generator = torch.Generator().manual_seed(2)
    probabilities = {n: torch.rand(s.units, generator=generator) for n, s in places.sites.items()}
    flat = torch.cat(list(probabilities.values())).double()
    sizes = [getattr(term, measure) for term in places.terms]
    expected = 0.0
    for number in range(2 ** len(flat)):
        bits = torch.tensor([(number >> place) & 1 for place in range(len(flat))]).bool()
        chance = math.prod(torch.where(bits, flat, 1 - flat).tolist())
        first, second, heads, branch, block = bits.split([3, 4, 2, 1, 1])
        kept = {
            "first": int(first.sum()) * bool(second.any()),
            "second": int(second.sum()),
            "block.heads": int(heads.sum()) * int(branch) * int(block),
            "block.attention": int(branch) * int(block) * bool(heads.any()),
            "block": int(block),
        }
        total = sum(
            size * math.prod(kept[name] for name in term.factors)
            for size, term in zip(sizes, places.terms, strict=True)
        )
        expected += chance * total
    found = ExpectedSize(places, list(places.sites), places.terms, sizes)(probabilities)
    assert float(found) == pytest.approx(expected)


def test_products_over_units_are_made_only_where_they_are_read():
    """A site of single weights has millions of units, whose product with zeros takes seconds."""
    places = Places()
    sizes = [term.parameters for term in places.terms]
    size = ExpectedSize(places, list(places.sites), places.terms, sizes)
    assert (size.emptied, size.wholes) == (["second", "block.heads"], [])
    alone = [term for term in places.terms if term.factors == ("first",)]
    whole = [CostTerm(2, 2, ("second",), whole=True)]
    size = ExpectedSize(places, ["first", "second"], alone + whole, [10, 2])
    assert (size.emptied, size.wholes) == (["second"], ["second"])
    found = size({"first": torch.tensor([0.5, 1.0, 0.0]), "second": torch.tensor([0.5] * 4)})
    assert float(found) == pytest.approx(10 * 1.5 * (1 - 0.5**4) + 2 * 0.5**4)
