"""One main per stage: argument parsing and nothing else."""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence

from espnet_prune.errors import EspnetPruneError
from espnet_prune.job_control import STOPPED_EXIT, StoppedOnRequest


def run_main(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Runs a stage's main; a user's error becomes one readable line and exit status 2.

    A training that saved and ended because its job is about to end has a status of its own.
    """
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(_worth_showing)
    warnings.filterwarnings("ignore", "No valid stats found")  # ESPnet's CER, which is off
    try:
        return main(argv)
    except StoppedOnRequest as stopped:
        print(f"stopped as asked: {stopped}", file=sys.stderr)
        return STOPPED_EXIT
    except EspnetPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _worth_showing(record: logging.LogRecord) -> bool:
    """This project's own records and everybody's warnings; the rest is for log files."""
    ours = record.name.startswith(("espnet_prune", "__main__"))
    return ours or record.levelno >= logging.WARNING
