"""Wav2Vec2-BERT as an encoder of ESPnet, behind its stacked filter banks."""

from typing import Any

from torch import Tensor

from espnet_prune.models.huggingface.feature_encoder import FeatureEncoder


class EspnetWav2Vec2Bert(FeatureEncoder):
    """``encoder: wav2vec2_bert`` with ``frontend: stacked_fbank``."""

    class_name = "Wav2Vec2BertModel"

    def call_options(self, xs_pad: Tensor) -> dict[str, Any]:
        return {"mask_time_indices": self.hidden_frames(xs_pad, xs_pad.shape[1])}
