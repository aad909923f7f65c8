"""The encoder class of cut models, registered among ESPnet's choices.

``encoder: pruned_conformer`` with ``encoder_conf.pruned_arch`` (a plan) builds a ConformerEncoder
and cuts it to the plan's shape, so that stock ``Speech2Text`` loads a cut model's weights.
Importing this module registers it; spawned processes must import it again.
"""

from collections.abc import Mapping
from typing import Any

from espnet_prune.espnet.encoder import PrunedConformerEncoder

ENCODER = "pruned_conformer"


def register() -> None:
    """Adds the encoder to ESPnet's choices; harmless when called again."""
    from espnet_prune.espnet.editdistance_stub import ensure_editdistance
    from espnet_prune.espnet.torchaudio_stub import ensure_torchaudio

    ensure_torchaudio()
    ensure_editdistance()
    from espnet2.tasks.asr import encoder_choices

    classes: Mapping[str, Any] = encoder_choices.classes
    classes[ENCODER] = PrunedConformerEncoder


register()
