"""espnet_prune: structured pruning of speech recognisers, from learned masks to a smaller model.

Four verbs::

    method = espnet_prune.L0Distill(target=0.5, updates=2000)
    gated = espnet_prune.inject(model, method)
    ...                                    # train with your own loss + method.loss(gated)
    small = espnet_prune.cut(gated.eval(), method.masks(gated))
    espnet_prune.save(small, "small"); small = espnet_prune.load("small")
"""

import importlib

__version__ = "0.1.0"

_LAZY = {
    "inject": "espnet_prune.surgery",
    "cut": "espnet_prune.surgery",
    "save": "espnet_prune.surgery",
    "load": "espnet_prune.surgery",
    "L0Distill": "espnet_prune.methods",
    "make_method": "espnet_prune.methods",
}
__all__ = [*_LAZY, "__version__"]


def __getattr__(name: str):
    """Imports torch only when a verb is used, so that the data stages start at once."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'espnet_prune' has no attribute '{name}'")
