"""Parakeet's encoder as one of ESPnet's, behind NeMo's features."""

from torch import Tensor

from espnet_prune.models.huggingface.feature_encoder import FeatureEncoder


class EspnetParakeet(FeatureEncoder):
    """``encoder: parakeet`` with ``frontend: nemo``."""

    class_name = "ParakeetEncoder"

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return self.model._get_subsampling_output_length(lengths)
