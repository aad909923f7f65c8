"""What transformers warns of, though no user of it can act on it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

GENERATION = "transformers.generation.utils"
# Whisper's own ``generate`` gives suppress_tokens twice, and a default length beside the one that
# it was given, and is warned by the ``generate`` below it.
ITS_OWN = (
    "Passing `generation_config` together with generation-related arguments",
    "Both `max_new_tokens`",
)


@contextmanager
def without_its_own_warning() -> Iterator[None]:
    """Within it, Whisper's ``generate`` doesn't warn of how it is written itself."""
    logger = logging.getLogger(GENERATION)
    logger.addFilter(_not_its_own)
    try:
        yield
    finally:
        logger.removeFilter(_not_its_own)


def _not_its_own(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(ITS_OWN)
