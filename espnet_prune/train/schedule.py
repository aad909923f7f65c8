"""Learning rates by a list, which stay where the list ends."""

import logging

from espnet2.schedulers.piecewise_linear_warmup_lr import PiecewiseLinearWarmupLR

logger = logging.getLogger(__name__)


class PiecewiseLinearLR(PiecewiseLinearWarmupLR):
    """ESPnet's, but for what follows the last update of its list.

    There ESPnet goes on from the optimiser's own rate, by the square root of updates. After a list
    that ends at another rate, such as 0, that is a jump, and it ruins a model that is finished. So
    the last rate of such a list holds.
    """

    def get_lr(self) -> list[float]:
        """The rates of this update, one for each group."""
        rates = super().get_lr()
        end, last = self.warmup_steps_list[-1], self.warmup_lr_list[-1]
        if self.last_epoch + 1 <= end:
            return rates
        held = [
            base if last == own else last for base, own in zip(rates, self.base_lrs, strict=True)
        ]
        if held != rates and self.last_epoch == end + 1:  # an update was really made with it
            logger.warning(
                "scheduler_conf: warmup_steps_list ends at update %d, the training goes on: the "
                "rate stays at %g; let the list end with the training",
                end,
                last,
            )
        return held


def register() -> None:
    """Makes it what ESPnet's trainings know by the name ``piecewiselinearwarmuplr``."""
    from espnet2.tasks.abs_task import scheduler_classes

    scheduler_classes["piecewiselinearwarmuplr"] = PiecewiseLinearLR
