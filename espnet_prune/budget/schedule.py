"""The target's way from the measured start to its final value, past smaller sizes if wanted."""

from collections.abc import Sequence
from dataclasses import dataclass

from espnet_prune.config import check_range
from espnet_prune.errors import ConfigError


@dataclass(frozen=True)
class TargetSchedule:
    """A target that rises linearly and then holds.

    P1's schedule is not published; rising over the first 10-25% of the updates is ours, after
    CoFi (arXiv 2204.00408).

    Attributes:
        target: final sparsity, 0 < target < 1.
        warmup_updates: updates over which it rises.
    """

    target: float
    warmup_updates: int

    def __post_init__(self) -> None:
        check_range("budget: target", self.target, 1e-9, 1 - 1e-9)

    def at(self, update: int, start: float) -> float:
        """Target sparsity at ``update``, from ``start``, the sparsity measured at update 0."""
        if update >= self.warmup_updates:
            return self.target
        return start + (self.target - start) * update / self.warmup_updates


@dataclass(frozen=True)
class Rung:
    """One of the sizes of a run.

    Attributes:
        target: its sparsity.
        updates: updates of the run up to the end of its stretch, when its state is taken.
    """

    target: float
    updates: int


@dataclass(frozen=True)
class LadderSchedule:
    """Several targets one after the other: a ``TargetSchedule`` from each to the next.

    Ours: each stretch rises over the same share of its updates and holds for the rest, so that the
    gates settle before a size is taken. With one rung it is a ``TargetSchedule``.

    Attributes:
        rungs: by rising target; the last is the run's own.
        warmup_fraction: share of each stretch over which its target rises.

    Raises:
        ConfigError: the targets or the updates don't rise.
    """

    rungs: tuple[Rung, ...]
    warmup_fraction: float

    def __post_init__(self) -> None:
        check_rising("ladder", [rung.target for rung in self.rungs])
        check_rising("updates of the ladder", [rung.updates for rung in self.rungs])

    def at(self, update: int, start: float) -> float:
        """Target sparsity at ``update``, from ``start``, the sparsity measured at update 0."""
        begun = 0
        for rung in self.rungs:
            if update < rung.updates or rung is self.rungs[-1]:
                break
            begun, start = rung.updates, rung.target
        warmup = round(self.warmup_fraction * (rung.updates - begun))
        return TargetSchedule(rung.target, warmup).at(update - begun, start)


def even_rungs(targets: Sequence[float], updates: int, multiple: int = 1) -> tuple[Rung, ...]:
    """Rungs that share the updates evenly; the last one has all of them behind it.

    Args:
        targets: rising; the last is the run's own.
        updates: number of updates of the whole run.
        multiple: every rung ends after a multiple of so many, such as those of an epoch.

    Raises:
        ConfigError: there are fewer multiples than targets.
    """
    parts = updates // multiple
    if parts < len(targets):
        raise ConfigError(
            f"ladder: {len(targets)} sizes, the target included, don't fit into {parts} stretches "
            f"of {multiple} updates; give more epochs or fewer sizes"
        )
    ends = [round(index * parts / len(targets)) for index in range(1, len(targets) + 1)]
    return tuple(Rung(t, end * multiple) for t, end in zip(targets, ends, strict=True))


def check_rising(where: str, values: Sequence[float]) -> None:
    """ConfigError unless each value is larger than the one before."""
    for before, after in zip(values, values[1:], strict=False):
        if after <= before:
            raise ConfigError(
                f"{where}: {after:g} comes after {before:g}; give values that rise, without the "
                "run's own target, which must be the largest"
            )
