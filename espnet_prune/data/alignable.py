"""Whether CTC can align an utterance: a frame a token, and one more between two equal ones.

Of an utterance with fewer frames ESPnet's CTC makes a loss of 0, so it teaches nothing, and nothing
says so.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.data.round_trip import encoder_of
from espnet_prune.errors import DataError

logger = logging.getLogger(__name__)
SHOWN = 5
HOP = 128  # ESPnet's front-end where ``hop_length`` isn't given
SSL_RECEPTIVE, SSL_STRIDE = (
    400,
    320,
)  # samples of a frame of wav2vec 2.0, between two


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
    if config.get("encoder") == "ssl":
        return max(0, (samples - SSL_RECEPTIVE) // SSL_STRIDE + 1)
    features = samples // (config.get("frontend_conf") or {}).get("hop_length", HOP) + 1
    return max(0, ((features - 1) // 2 - 1) // 2)  # two convolutions of 3 at every second


def _known(config: Mapping[str, Any]) -> bool:
    """Whether ``frames_of`` counts this encoder's frames."""
    conv2d = (config.get("encoder_conf") or {}).get("input_layer", "conv2d") == "conv2d"
    return config.get("encoder") == "ssl" or (config.get("encoder") == "conformer" and conv2d)
