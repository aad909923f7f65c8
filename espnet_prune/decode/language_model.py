"""A language model that ESPnet trained, for its joint search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.io_torch import read_torch
from espnet_prune.models.espnet.folder import CONFIG, read_espnet_config
from espnet_prune.models.espnet.trained import best_weights
from espnet_prune.surgery.serialize import load_strictly

INSIDE = "lm."  # what its weights' names begin with in ESPnet's model around it


class LanguageModel:
    """The files of one.

    Args:
        folder: folder of the experiment, with ``config.yaml`` and weights.
        asr_config: ESPnet's of the recogniser.

    Attributes:
        files: the options of ESPnet's ``Speech2Text`` that name them.

    Raises:
        DataError: a file is missing.
        ModelError: it was trained on other tokens.
    """

    def __init__(self, folder: str, asr_config: Mapping[str, Any]) -> None:
        config_file = Path(folder) / CONFIG
        config = read_espnet_config(config_file)
        self.weights = best_weights(Path(folder), config)
        self.files = {"lm_train_config": str(config_file), "lm_file": str(self.weights)}
        ours, theirs = (list(c.get("token_list") or ()) for c in (asr_config, config))
        if ours != theirs:
            raise ModelError(
                f"{config_file}: token_list: its {len(theirs)} tokens aren't the {len(ours)} of "
                "the recogniser; a language model on the same tokens was expected"
            )

    def check(self, lm: nn.Module) -> None:
        """Loads its weights again, every one, which ESPnet itself doesn't make sure of."""
        state = read_torch(self.weights)
        own = {name.removeprefix(INSIDE): value for name, value in state.items()}
        load_strictly(lm, own, str(self.weights))
