"""The target's way from the measured start to its final value."""

from dataclasses import dataclass

from espnet_prune.config import check_range


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
