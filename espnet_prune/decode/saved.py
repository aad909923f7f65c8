"""Greedy CTC with times by a saved model itself, in torch."""

from pathlib import Path

import numpy

from espnet_prune.errors import ModelError
from espnet_prune.export.recogniser import GreedyRecogniser
from espnet_prune.surgery import load
from espnet_prune.surgery.families import family_of


class SavedRecogniser(GreedyRecogniser):
    """A folder made by ``espnet_prune.save`` from a whole model.

    Args:
        folder: the folder.
        segment_seconds: as in the base class.

    Raises:
        DataError: the description is missing.
        ModelError: an encoder alone, a model without CTC, damaged weights.
    """

    def __init__(self, folder: str | Path, segment_seconds: float | None = None) -> None:

        model = load(folder)
        if getattr(model, "ctc", None) is None:
            raise ModelError(
                f"{folder}: this model has no CTC, whose frames give words their times"
            )
        config = model.espnet_prune_config
        bpe_model = Path(config.get("bpemodel") or "")
        family = family_of(model)
        about = family.describe_graphs(model)
        super().__init__(about, config["token_list"], bpe_model, segment_seconds)
        family.speed_up(model)
        self.model = model

    def log_probs(self, speech: numpy.ndarray) -> numpy.ndarray:
        """As the base class says."""
        from espnet_prune.decode.recogniser import ctc_log_probs

        return ctc_log_probs(self.model, speech).numpy()
