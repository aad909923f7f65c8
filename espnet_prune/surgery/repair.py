"""Statistics of batch norms, estimated anew after the units before them were changed.

Where units are merged, the mean of several varies less than each did, and a norm that still divides
by the old variance lets the signal shrink from block to block. REPAIR (Jordan et al. 2023, arXiv
2211.08403), as model folding uses it where there is data, sets the statistics to those of the
changed model. As in its code, the norms normalise by each utterance while they are estimated.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from espnet_prune.surgery.gated import GatedModel
from espnet_prune.surgery.holding import holding


@torch.no_grad()
def repair_statistics(
    gated: GatedModel, masks: Mapping[str, Tensor], passes: Sequence[Callable[[], object]]
) -> None:
    """Sets the running means and variances, in place, to the averages over all passes.

    Args:
        gated: the gated model, in evaluation mode.
        masks: masks of what is left.
        passes: each runs it on one utterance, without padding.
    """
    norms = [m for m in gated.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    device = next(gated.model.parameters()).device
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
        norm.train()
    try:
        with holding(gated, {name: mask.to(device) for name, mask in masks.items()}):
            for run in passes:
                run()
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
