"""Whether a model reports the number that the best epochs of its training are chosen by."""

import argparse
import math
from collections.abc import Mapping, Sequence

from torch import nn

from espnet_prune.errors import ConfigError, TrainingError

OF_A_DECODER = ("acc", "loss_att")


def check_decoder_for(options: argparse.Namespace, model: nn.Module) -> None:
    """ConfigError where that is a decoder's number, and the model, built before training, has none.

    Args:
        options: ESPnet's.
        model: an ESPnetASRModel.
    """
    phase, key, mode = options.best_model_criterion[0]
    attends = getattr(model, "decoder", None) is not None and not model.use_transducer_decoder
    if key in OF_A_DECODER and not attends:
        raise ConfigError(
            f"best_model_criterion: [{phase}, {key}, {mode}]: the model has no attention decoder, "
            "so it reports none; set it to [[valid, loss, min]], in finetune.yaml "
            "[[valid, loss_label, min]]"
        )


def check_criterion(options, stats: Mapping[str, Sequence]) -> None:
    """TrainingError where the best epochs are to be chosen by what the model doesn't report.

    ESPnet would train to the end, average nothing, and remove all epochs but the last.

    Args:
        options: ESPnet's.
        stats: what the validation reported, by name, a value a batch.
    """
    phase, key, _ = options.best_model_criterion[0]
    reported = sorted(name for name, values in stats.items() if not _all_nan(values))
    if phase in ("train", "valid") and key in reported:
        return
    names = ", ".join(reported)
    raise TrainingError(
        f"{options.output_dir}: best_model_criterion: [{phase}, {key}]: this model reports no such "
        f"number, but, as train and valid: {names}; name one of them (without a decoder [valid, "
        "loss, min]), remove this folder and give the same command again"
    )


def _all_nan(values: Sequence) -> bool:
    return all(math.isnan(float(getattr(value, "value", math.nan))) for value in values)
