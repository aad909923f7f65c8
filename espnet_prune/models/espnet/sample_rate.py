"""The sampling rate that a model was trained at, by its configuration."""

from collections.abc import Mapping
from typing import Any

from espnet_prune.errors import ModelError

SAMPLE_RATE = 16000  # of ESPnet's front-end where ``fs`` isn't given


def sample_rate_of(config: Mapping[str, Any] | None) -> int:
    """Rate in Hz that a model's front-end reads.

    Args:
        config: the model's configuration as ESPnet writes it; ``frontend_conf: fs`` is a number
            or a string such as ``8k``.

    Raises:
        ModelError: that value is no rate.
    """
    rate = ((config or {}).get("frontend_conf") or {}).get("fs", SAMPLE_RATE)
    if isinstance(rate, str):
        import humanfriendly  # which ESPnet reads this key with

        try:
            rate = humanfriendly.parse_size(rate)
        except humanfriendly.InvalidSize:
            pass
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or rate < 1:
        raise ModelError(f"frontend_conf: fs: {rate!r}; expected a rate in Hz, such as 8000 or 8k")
    return int(rate)
