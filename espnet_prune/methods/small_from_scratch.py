"""A small model of equal size trained from random weights: is pruning worth it at all?"""

from typing import ClassVar

from espnet_prune.methods.magnitude import UniformMagnitude


class SmallFromScratch(UniformMagnitude):
    """The uniform shape at the target, all weights drawn anew, then trained like the others.

    It gets the updates of pruning and finetuning together, and the same teacher.
    """

    from_scratch: ClassVar[bool] = True
