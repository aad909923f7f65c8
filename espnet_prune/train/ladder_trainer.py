"""The trainer of stage 8: keeps the state of every size that a run with a ladder passes.

A rung is written after its epoch's validation and before ESPnet's checkpoint of that epoch. A run
killed in between does the epoch again from the checkpoint before, bit by bit, and writes the same
state again; one that has the checkpoint has the rung too.
"""

import logging
from pathlib import Path

import torch
from torch import nn

from espnet_prune.errors import TargetMissedError
from espnet_prune.io_torch import write_torch
from espnet_prune.methods import L0Distill
from espnet_prune.surgery import GatedModel
from espnet_prune.train.distributed import is_first
from espnet_prune.train.rungs import RungState, rung_path, write_rung
from espnet_prune.train.trainer import GuardedTrainer

logger = logging.getLogger(__name__)


class LadderTrainer(GuardedTrainer):
    """Trains a ``DistilledModel`` with gates; without a ladder it is a ``GuardedTrainer``."""

    averages = False  # the masks' last state is cut

    @classmethod
    def validate_one_epoch(cls, model, reporter, options, **keywords) -> None:
        """The validation; then the rung that ends with this epoch, if one does."""
        super().validate_one_epoch(model=model, reporter=reporter, options=options, **keywords)
        if is_first():
            plain = getattr(model, "module", model)  # of several processes
            keep_rung(plain, Path(options.output_dir), reporter.epoch, options.max_epoch)


@torch.no_grad()
def keep_rung(model: nn.Module, training: Path, epoch: int, epochs: int) -> None:
    """Writes weights and gates as they are, if a rung of the model's method ends here.

    Args:
        model: a ``DistilledModel`` with its method and gates.
        training: folder of the training.
        epoch: the one that ended.
        epochs: number of epochs of the whole run.
    """
    method, gated = model.method, model.gated
    if not method.emits_ladder:
        return
    for number, rung in enumerate(method.ladder, start=1):
        if rung.updates * epochs != epoch * method.updates:
            continue
        path = rung_path(training, number)
        state = RungState(
            target=rung.target,
            epoch=epoch,
            updates=int(gated.updates),
            expected=float(gated.expected_sparsity()),
            rounded=gated.hard_sparsity(),
            closed=_closed(method, gated, rung.target, path),
        )
        write_torch(model.state_dict(), path)
        write_rung(path, state)
        logger.info("epoch %d ends a rung of the ladder: %s", epoch, state)


def _closed(method: L0Distill, gated: GatedModel, target: float, path: Path) -> float:
    """Sparsity of the cut that the rung would give now; a warning where stage 9 will refuse it."""
    masks = method.masks_at(gated, target)
    try:
        masks = method.aligned(gated, masks, target)
    except TargetMissedError as error:
        logger.warning("%s: stage 9 will refuse it: %s", path, error)
    closed = float(gated.budget.sparsity(gated.budget.hard(masks)))
    if abs(closed - target) > method.config.budget.tolerance:
        logger.warning(
            "%s: its cut would have a sparsity of %.2f%%, further from %.2f%% than the tolerance; "
            "stage 9 will refuse it. Train longer, or gate finer sites",
            path,
            100 * closed,
            100 * target,
        )
    return closed
