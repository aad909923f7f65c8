"""Greedy CTC with times by a saved model itself, in torch."""

from pathlib import Path

import numpy
import torch

from espnet_prune.errors import ModelError
from espnet_prune.export.folder import describe
from espnet_prune.export.recogniser import SEGMENT_SECONDS, GreedyRecogniser
from espnet_prune.surgery import load


class SavedRecogniser(GreedyRecogniser):
    """A folder made by ``espnet_prune.save`` from a whole model.

    Args:
        folder: the folder.
        segment_seconds: longer recordings are cut at pauses into pieces of at most this length.

    Raises:
        DataError: the description is missing.
        ModelError: an encoder alone, a model without CTC, damaged weights.
    """

    def __init__(self, folder: str | Path, segment_seconds: float = SEGMENT_SECONDS) -> None:
        from espnet_prune.espnet.decoding import least_samples
        from espnet_prune.espnet.fast_encoder import speed_up

        model = load(folder)
        if getattr(model, "ctc", None) is None:
            raise ModelError(
                f"{folder}: this model has no CTC, whose frames give words their times"
            )
        config = model.espnet_prune_config
        bpe_model = Path(config.get("bpemodel") or "")
        about = {**describe(model), "least_samples": least_samples(model)}  # a graph needs more
        super().__init__(about, config["token_list"], bpe_model, segment_seconds)
        speed_up(model.encoder)
        self.model = model

    @torch.no_grad()
    def log_probs(self, speech: numpy.ndarray) -> numpy.ndarray:
        """As the base class says."""
        encoded, _ = self.model.encode(torch.from_numpy(speech)[None], torch.tensor([len(speech)]))
        return self.model.ctc.log_softmax(encoded)[0].numpy()
