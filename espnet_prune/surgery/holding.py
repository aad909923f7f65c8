"""Masks of one's own choice on a gated model, for as long as a ``with`` block lasts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from espnet_prune.surgery.gated import GatedModel


@contextmanager
def holding(gated: GatedModel, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Every forward within uses ``masks``, and gradients flow into them.

    Args:
        gated: the gated model.
        masks: (units,) by site; sites that aren't named are left unmasked.
    """
    gated.__dict__["masks"] = lambda: masks  # hides the method for as long
    try:
        yield
    finally:
        del gated.__dict__["masks"]
