#!/usr/bin/env python3
"""Runs a command here or on a cluster: `utils/submit.py --help`."""

import os
import signal
import sys
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
OWN_PYTHON = str(CLONE / ".venv/bin/python")
CURRENT_ENVIRONMENT = "ESPNET_PRUNE_CURRENT_ENV"  # see egs/TEMPLATE/prune1/path.sh

# While Python imports, a signal just ends this program; nothing has been submitted.
if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path.insert(0, str(CLONE))


def find_main():
    """The program; typed by hand, this may be begun by any Python, which then lacks packages."""
    if sys.version_info < (3, 11):  # noqa: UP036  (a system's own may be older)
        begin_again("is older than 3.11")
    try:
        from espnet_prune.cluster.submit import main
    except ModuleNotFoundError as error:
        if error.name.startswith("espnet_prune"):
            raise
        begin_again(f"has no module '{error.name}'")
    return main


def begin_again(lack):
    """By this clone's own Python, if there is another one; ends with the remedy where not."""
    if os.environ.get(CURRENT_ENVIRONMENT) == "1":
        remedy = f"install this project's packages there, or unset {CURRENT_ENVIRONMENT}"
    else:
        if os.access(OWN_PYTHON, os.X_OK) and sys.executable != OWN_PYTHON:
            os.execv(OWN_PYTHON, [OWN_PYTHON, *sys.argv])
        remedy = f"run {CLONE}/utils/setup_env.sh, or activate your own environment"
    print(f"error: {sys.executable} {lack}; {remedy}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(find_main()(sys.argv[1:]))
