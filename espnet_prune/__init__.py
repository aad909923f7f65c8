"""espnet_prune: structured pruning of speech recognisers, from learned masks to a smaller model.

Four verbs::

    method = espnet_prune.L0Distill(target=0.5, updates=2000)
    gated = espnet_prune.inject(model, method)
    ...                                    # train with your own loss + method.loss(gated)
    small = espnet_prune.cut(gated.eval(), method.masks(gated))
    espnet_prune.save(small, "small"); small = espnet_prune.load("small")
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espnet_prune.methods import L0Distill, make_method
    from espnet_prune.surgery import cut, inject, load, save

    __version__: str

_UNINSTALLED = "0+uninstalled"
_LAZY = {
    "inject": "espnet_prune.surgery",
    "cut": "espnet_prune.surgery",
    "save": "espnet_prune.surgery",
    "load": "espnet_prune.surgery",
    "L0Distill": "espnet_prune.methods",
    "make_method": "espnet_prune.methods",
}
__all__ = ["L0Distill", "__version__", "cut", "inject", "load", "make_method", "save"]


def __getattr__(name: str) -> Any:
    """Imports torch only when a verb is used, so that the data stages start at once."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'espnet_prune' has no attribute '{name}'")


def _version() -> str:
    """That of the tag that was installed; a folder that is merely on the path has none."""
    try:
        return importlib.metadata.version("espnet_prune")
    except importlib.metadata.PackageNotFoundError:
        return _UNINSTALLED
