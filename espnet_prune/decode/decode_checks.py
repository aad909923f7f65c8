"""How a search's options, a model and a set fit; what doesn't is clamped or warned of."""

import logging
from pathlib import Path
from typing import Any

from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.models.espnet.features import sample_rate_of
from espnet_prune.models.espnet.folder import model_files, read_espnet_config, trained_seconds

logger = logging.getLogger(__name__)
UNKNOWN = "<unk>"
BEYOND = 1.5  # times the longest training utterance, up to which models are taken to reach (ours)


def special_ids(model: Any) -> set[int]:
    """Ids of an ESPnetASRModel that stand for no text."""
    unknown = {i for i, token in enumerate(model.token_list) if token == UNKNOWN}
    return {model.blank_id, model.sos, model.eos} | unknown


def fitting_beam(wanted: int, config: dict[str, Any], path: Path) -> int:
    """As many hypotheses as there are tokens at most: a search's first step has no more."""
    tokens = config.get("token_list")
    if not isinstance(tokens, list):  # ESPnet says what is wrong with it
        return wanted
    if wanted > len(tokens):
        logger.info("%s: beam_size %d, but %d tokens: so many are kept", path, wanted, len(tokens))
    return min(wanted, len(tokens))


def warn_of_long(model: Path, data: Path, segment_seconds: float) -> None:
    """Warns of utterances, or their pieces, much longer than any that the model was trained on."""
    trained, path = trained_seconds(model), data / "utt2num_samples"
    if trained is None or not path.exists():
        return
    rate = sample_rate_of(read_espnet_config(model_files(model)[0]))
    seconds = [min(int(n) / rate, segment_seconds) for n in read_map(path).values()]
    long = [length for length in seconds if length > BEYOND * trained]
    if long:
        logger.warning(
            "%s: %d of %d utterances have up to %.1f s, the model was trained on at most %.1f s: "
            "it makes little of them; a lower segment_seconds in decode.yaml cuts them at pauses",
            data,
            len(long),
            len(seconds),
            max(long),
            trained,
        )
