"""Model families: what each looks like, how it is built, decoded, and read from its origin.

A family is one record, ``FAMILY``, in a module here or in ``family.py`` of a package here; whatever
is here is found. ESPnet's and transformers' sides of things, which families share, have packages
too.
"""

import functools
import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espnet_prune.models.family import ModelFamily
    from espnet_prune.surgery.families import Format


@functools.cache
def families() -> "tuple[ModelFamily, ...]":
    """The records of all families."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        name = f"{__name__}.{module.name}" + (".family" if module.ispkg else "")
        if importlib.util.find_spec(name) is not None:
            record = getattr(importlib.import_module(name), "FAMILY", None)
            found += [] if record is None else [record]
    return tuple(found)


@functools.cache
def formats() -> "tuple[Format, ...]":
    """How whole models are described: ESPnet's, transformers', and encoders by themselves."""
    from espnet_prune.models.espnet.encoder_family import BareEncoder, EspnetEncoder
    from espnet_prune.models.espnet.format import OWSM_MODELS, EspnetFormat, OwsmFormat
    from espnet_prune.models.huggingface.format import TransformersFormat

    encoders = (family for family in families() if isinstance(family, EspnetEncoder))
    owsm = map(OwsmFormat, OWSM_MODELS)
    return EspnetFormat(), *owsm, TransformersFormat(), *map(BareEncoder, encoders)


def family_called(choice: str | None) -> "ModelFamily | None":
    """The family that has a name among ESPnet's choices; None for ESPnet's own."""
    return next((family for family in families() if choice in family.choices), None)
