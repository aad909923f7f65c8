"""Asks a scheduler by one of its own programs."""

import re
import subprocess
from collections.abc import Sequence

from espnet_prune.cluster.wait import Unreachable
from espnet_prune.errors import EnvironmentProblem

SECONDS = 40  # clients that find no controller hang for minutes


def ask(command: Sequence[str], no_answer: re.Pattern) -> str:
    """The output of a scheduler's program, which Ctrl-C on the terminal doesn't reach.

    Args:
        command: the program and its arguments.
        no_answer: finds the messages that mean that the scheduler can't be reached.

    Raises:
        Unreachable: no answer, which says nothing about the jobs.
        EnvironmentProblem: there is no such program here.
        subprocess.CalledProcessError: it failed otherwise.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, start_new_session=True
        )
    except FileNotFoundError as error:
        raise EnvironmentProblem(
            f"{command[0]}: no such program; is this a machine of the cluster, with the "
            "scheduler's programs? Else choose the back-end local"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"{command[0]} gave no answer in {SECONDS} s") from error
    if done.returncode:
        if no_answer.search(done.stderr):
            raise Unreachable(done.stderr.strip())
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout
