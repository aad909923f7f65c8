"""This project's encoder and decoder classes, registered among ESPnet's choices.

``encoder: pruned_conformer`` with ``encoder_conf.pruned_arch`` (a plan) builds a ConformerEncoder
and cuts it to the plan's shape, so that stock ``Speech2Text`` loads a cut model's weights;
``decoder: pruned_transformer`` does the same for a TransformerDecoder.
``encoder: ssl`` is a wav2vec 2.0 or HuBERT model of transformers, ``whisper_hf`` is Whisper, as
encoder and as decoder. ``encoder: nemo_conformer`` and ``frontend: nemo`` are NVIDIA NeMo's.
Importing this module registers it; spawned processes must import it again.
"""

from collections.abc import Mapping
from typing import Any

from espnet_prune.models.conformer.encoder import PrunedConformerEncoder
from espnet_prune.models.nemo.encoder import NemoConformerEncoder
from espnet_prune.models.nemo.features import NemoFrontend
from espnet_prune.models.ssl.encoder import SslEncoder
from espnet_prune.models.transformer_decoder.decoder import PrunedTransformerDecoder
from espnet_prune.models.whisper import WHISPER
from espnet_prune.models.whisper.espnet_parts import WhisperHfDecoder, WhisperHfEncoder

ENCODER = "pruned_conformer"
DECODER = "pruned_transformer"
SSL_ENCODER = "ssl"
NEMO_FRONTEND = "nemo"


def register() -> None:
    """Adds the classes to ESPnet's choices; harmless when called again."""
    from espnet_prune.models.espnet.editdistance_stub import ensure_editdistance
    from espnet_prune.models.espnet.torchaudio_stub import ensure_torchaudio

    ensure_torchaudio()
    ensure_editdistance()
    from espnet2.tasks.asr import decoder_choices, encoder_choices, frontend_choices

    classes: Mapping[str, Any] = encoder_choices.classes
    classes[ENCODER] = PrunedConformerEncoder
    classes[SSL_ENCODER] = SslEncoder
    classes[WHISPER] = WhisperHfEncoder
    classes[NemoConformerEncoder.choice] = NemoConformerEncoder
    frontends: Mapping[str, Any] = frontend_choices.classes
    frontends[NEMO_FRONTEND] = NemoFrontend
    decoder_classes: Mapping[str, Any] = decoder_choices.classes
    decoder_classes[DECODER] = PrunedTransformerDecoder
    decoder_classes[WHISPER] = WhisperHfDecoder


register()
