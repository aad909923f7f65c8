"""Options of the mains that read data directories as they come, in stages 1 to 3."""

import argparse
from typing import TYPE_CHECKING

from espnet_prune.errors import ConfigError

if TYPE_CHECKING:
    from espnet_prune.data.excerpt import Reading

RUN, FORBID = "run", "forbid"
MEAN = "mean"  # as ``Reading`` has it


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--sample_rate``, ``--channel`` and ``--pipes``."""
    parser.add_argument(
        "--sample_rate", type=int, default=16000, help="to which others are resampled, in Hz"
    )
    parser.add_argument(
        "--channel", help="of recordings of several: which is taken, from 1, or mean; else refused"
    )
    parser.add_argument(
        "--pipes", choices=[RUN, FORBID], default=RUN, help="commands of wav.scp: run or forbid"
    )


def reading_of(args: argparse.Namespace) -> "Reading":
    """What these options say.

    Raises:
        ConfigError: the channel is neither a number from 1 nor ``mean``; no rate.
    """
    from espnet_prune.data.excerpt import Reading

    if args.sample_rate < 1:
        raise ConfigError(
            f"--sample_rate: {args.sample_rate}; expected a rate in Hz, such as 16000"
        )
    return Reading(args.sample_rate, _channel(args.channel), args.pipes == RUN)


def _channel(text: str | None) -> int | str | None:
    if not text or text == MEAN:
        return text or None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ConfigError(f"--channel: '{text}'; expected {MEAN}, or a number from 1")
    return int(text)
