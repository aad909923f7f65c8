"""One main per stage: argument parsing and nothing else."""

import logging
import os
import select
import sys
import warnings
from collections.abc import Callable, Sequence

from espnet_prune.errors import EspnetPruneError
from espnet_prune.job_control import STOPPED_EXIT, StoppedOnRequest

BROKEN_PIPE_EXIT = 141  # 128 + SIGPIPE, as a shell says of a program that ended so


def run_main(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Runs a stage's main; a user's error becomes one readable line and exit status 2.

    A training that saved and ended because its job is about to end has a status of its own, and
    so has a program whose output nobody reads any longer (``| head``), which ends quietly.
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
        status = main(argv)
        print(end="", flush=True)  # here, as nothing could catch it when the interpreter ends
        return status
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        # Python's own recipe: otherwise the flush when the interpreter ends would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_EXIT
    except StoppedOnRequest as stopped:
        print(f"stopped as asked: {stopped}", file=sys.stderr)
        return STOPPED_EXIT
    except EspnetPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _nobody_reads() -> bool:
    """Whether stdout is a pipe without a reader; another pipe may have broken too."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # no stdout, or none of the system's
        return False
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are told whatever is asked for
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _worth_showing(record: logging.LogRecord) -> bool:
    """This project's own records and everybody's warnings; the rest is for log files."""
    ours = record.name.startswith(("espnet_prune", "__main__"))
    return ours or record.levelno >= logging.WARNING
