"""What a group of systems is called, of which a curve or a row of a table is made."""

import os
from collections.abc import Sequence


def common_name(names: Sequence[str], method: str) -> str:
    """What the names begin with, and the method where that doesn't say it.

    Args:
        names: names of the systems; one stands as it is.
        method: method of all of them.
    """
    begin = os.path.commonprefix(names)
    if len(names) > 1:  # l0_30 and l0_50: not the digit that both may begin with
        begin = begin.rstrip("0123456789").rstrip("_-.") or method
    return begin if method in begin else f"{begin} ({method})"


def told_apart(labels: Sequence[str], members: Sequence[Sequence[str]]) -> list[str]:
    """The labels, each that another group has too with its members' names behind it.

    Args:
        labels: (groups,).
        members: (groups,) names of the systems of each.
    """
    return [
        label if labels.count(label) == 1 else f"{label}: {', '.join(names)}"
        for label, names in zip(labels, members, strict=True)
    ]
