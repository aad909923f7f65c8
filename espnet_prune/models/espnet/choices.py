"""All families' classes, registered among ESPnet's choices of encoders, decoders and front-ends.

``encoder: pruned_conformer`` with ``encoder_conf.pruned_arch`` (a plan), for example, builds a
ConformerEncoder and cuts it to the plan's shape, so that stock ``Speech2Text`` loads a cut model's
weights. Importing this module registers them; spawned processes must import it again.
"""

from collections.abc import Mapping
from typing import Any

from espnet_prune.models import families
from espnet_prune.models.espnet.imports import importing_espnet


def register() -> None:
    """Adds the classes to ESPnet's choices; harmless when called again."""
    with importing_espnet():
        from espnet2.tasks.asr import decoder_choices, encoder_choices, frontend_choices

    register_in(
        {"encoder": encoder_choices, "decoder": decoder_choices, "frontend": frontend_choices}
    )


def register_in(choices: Mapping[str, Any]) -> None:
    """Adds the classes to a task's choices, by part; parts that it doesn't name are left out."""
    for family in families():
        for part, classes in family.espnet_classes().items():
            if part in choices:
                choices[part].classes.update(classes)


register()
