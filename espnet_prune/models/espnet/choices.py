"""All families' classes, registered among ESPnet's choices of encoders, decoders and front-ends.

``encoder: pruned_conformer`` with ``encoder_conf.pruned_arch`` (a plan), for example, builds a
ConformerEncoder and cuts it to the plan's shape, so that stock ``Speech2Text`` loads a cut model's
weights. Importing this module registers them; spawned processes must import it again.
"""

import importlib

from espnet_prune.models import families
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.espnet.trained import ASR


def register(task: str = ASR) -> None:
    """Adds the classes to the choices of one of ESPnet's tasks; harmless when called again.

    Args:
        task: ``asr``, ``s2t`` or ``s2t_ctc``.
    """
    with importing_espnet():
        known = importlib.import_module(f"espnet2.tasks.{task}")
    for family in families():
        for part, classes in family.espnet_classes().items():
            if hasattr(known, f"{part}_choices"):  # OWSM-CTC has no decoder
                getattr(known, f"{part}_choices").classes.update(classes)


register()
