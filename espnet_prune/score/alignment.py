"""Errors of one text by sclite's alignment, in time for texts of hours.

A substitution costs 4, an insertion or deletion 3; of equally cheap ways the first of substitution,
insertion, deletion is taken. A row of the table is computed at once: what comes from the left is
the least of all cells before it, each with its insertions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

SUBSTITUTION_COST, GAP_COST = 4, 3  # sclite's


@dataclass(frozen=True)
class Counts:
    """Errors and words of one utterance."""

    words: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def errors(self) -> int:
        """All three kinds together."""
        return self.substitutions + self.deletions + self.insertions


def align(words: Sequence[str], recognised: Sequence[str]) -> Counts:
    """Errors of one utterance; words must match exactly."""
    numbers: dict[str, int] = {}
    theirs = numpy.array([numbers.setdefault(word, len(numbers)) for word in recognised], dtype=int)
    columns = numpy.arange(len(recognised) + 1)
    gaps = GAP_COST * columns
    cost = gaps
    found = numpy.stack([0 * columns, 0 * columns, columns])  # errors of each kind, by column
    for word in words:
        wrong = theirs != numbers.get(word, -1)
        across = cost[:-1] + SUBSTITUTION_COST * wrong
        down = cost + GAP_COST
        without_left = down.copy()
        without_left[1:] = numpy.minimum(across, down[1:])
        cost = numpy.minimum.accumulate(without_left - gaps) + gaps
        from_across = numpy.zeros(len(columns), bool)
        from_across[1:] = across == cost[1:]
        from_left = numpy.zeros(len(columns), bool)
        from_left[1:] = ~from_across[1:] & (cost[:-1] + GAP_COST == cost[1:])
        came = found.copy()
        came[1] += 1
        came[:, from_across] = found[:, :-1][:, from_across[1:]]
        came[0, from_across] += wrong[from_across[1:]]
        start = numpy.maximum.accumulate(numpy.where(from_left, 0, columns))
        found = came[:, start]
        found[2] += columns - start
    return Counts(len(words), *found[:, -1].tolist())
