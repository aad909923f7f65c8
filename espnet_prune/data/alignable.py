"""Whether CTC can align an utterance: a frame a token, and one more between two equal ones.

Of an utterance with fewer frames ESPnet's CTC makes a loss of 0, so it teaches nothing, and nothing
says so.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.data.round_trip import encoder_of
from espnet_prune.errors import DataError

logger = logging.getLogger(__name__)
SHOWN = 5
HOP = 128  # ESPnet's front-end where ``hop_length`` isn't given
SSL, SSL_RECEPTIVE, SSL_STRIDE = "ssl", 400, 320  # samples of a frame of wav2vec 2.0, between two
NEMO, NEMO_HOP, NEMO_PADDING = "nemo_conformer", 160, 1
PARAKEET, PARAKEET_FACTOR, HALVED = "parakeet", 8, (3, 2)  # its front-end halves the frames
BERT, BERT_WIDTH, BERT_HOP = "wav2vec2_bert", 400, 160  # it puts two frames side by side
ESPNET = ("conformer", "transformer", "branchformer", "e_branchformer")
# kernels and strides along time of ESPnet's ``input_layer``
CONVOLUTIONS = {
    "linear": (),
    "conv2d": ((3, 2), (3, 2)),
    "conv2d1": ((3, 1), (3, 1)),
    "conv2d2": ((3, 2), (3, 1)),
    "conv2d6": ((3, 2), (5, 3)),
    "conv2d8": ((3, 2), (3, 2), (3, 2)),
}
DEFAULT_LAYER = "conv2d"


def check_alignable(config: Mapping[str, Any], data: Path, tokens: Path) -> list[str]:
    """Warns of utterances that have more tokens than frames.

    Args:
        config: the teacher's configuration.
        data: a dump folder.
        tokens: folder of the tokens.

    Returns:
        Those utterances.

    Raises:
        DataError: all are.
    """
    if (config.get("model_conf") or {}).get("ctc_weight", 0.5) == 0 or not _known(config):
        return []
    encode, texts = encoder_of(tokens), read_map(data / "text")
    lengths = read_map(data / "utt2num_samples")
    short = {}
    for utterance, text in texts.items():
        needed = needed_frames(encode(text))
        there = frames_of(config, int(lengths[utterance]))
        if needed > there:
            short[utterance] = (needed, there)
    if not short:
        return []
    names = [f"'{u}' ({n} for {t} frames)" for u, (n, t) in list(short.items())[:SHOWN]]
    more = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
    said = (
        f"{data}: {len(short)} of {len(texts)} utterances have more tokens than frames, so CTC "
        f"learns nothing of them: {', '.join(names)}{more}"
    )
    if len(short) == len(texts):
        raise DataError(
            f"{said}; make fewer, longer tokens (stage 4: --token_type bpe, a larger --vocab_size)"
        )
    logger.warning("%s; is their text too long, or their recording cut?", said)
    return list(short)


def needed_frames(tokens: list[str]) -> int:
    """One a token, and a blank between two that are equal."""
    return len(tokens) + sum(a == b for a, b in zip(tokens, tokens[1:], strict=False))


def frames_of(config: Mapping[str, Any], samples: int) -> int:
    """Frames that the encoder makes of so many samples."""
    if config.get("encoder") == SSL:
        return max(0, (samples - SSL_RECEPTIVE) // SSL_STRIDE + 1)
    if config.get("encoder") == BERT:
        return max(0, (samples - BERT_WIDTH) // BERT_HOP + 1) // 2
    if config.get("encoder") in (NEMO, PARAKEET):
        frames, padding = samples // NEMO_HOP, NEMO_PADDING
    else:
        hop = (config.get("frontend_conf") or {}).get("hop_length", HOP)
        frames, padding = samples // hop + 1, 0
    for kernel, stride in _convolutions(config):
        frames = max(0, (frames + 2 * padding - kernel) // stride + 1)
    return frames


def _convolutions(config: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Kernel and stride along time of each convolution of the front-end."""
    if config.get("encoder") != PARAKEET:
        return CONVOLUTIONS[_input_layer(config)]
    model = (config.get("encoder_conf") or {}).get("model")
    own = model if isinstance(model, Mapping) else {}
    return (HALVED,) * int(math.log2(own.get("subsampling_factor", PARAKEET_FACTOR)))


def _input_layer(config: Mapping[str, Any]) -> str | None:
    return (config.get("encoder_conf") or {}).get("input_layer", DEFAULT_LAYER)


def _known(config: Mapping[str, Any]) -> bool:
    """Whether ``frames_of`` counts this encoder's frames."""
    if config.get("encoder") in (SSL, NEMO, PARAKEET, BERT):
        return True
    features = config.get("frontend", "default") == "default"
    return features and config.get("encoder") in ESPNET and _input_layer(config) in CONVOLUTIONS
