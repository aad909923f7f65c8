"""Asks a scheduler by one of its own programs."""

import re
import subprocess
import time
from collections.abc import Callable, Sequence

from espnet_prune.cluster.wait import Unreachable
from espnet_prune.errors import EnvironmentProblem

SECONDS = 40  # clients that find no controller hang for minutes
SUBMIT_SECONDS = 200  # an outage of three minutes is outlived
SUBMIT_PAUSE_SECONDS = 2
# What passes by itself, on the way to any scheduler: as the C library says it.
PASSING = (
    "connection (refused|reset|timed out|failure)|timed out|try again|resource temporarily "
    "unavailable|temporarily unable|no route to host|network is (unreachable|down)|host is "
    "(unreachable|down)|broken pipe|not connected|interrupted system call"
)


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
        if no_answer.search(done.stderr + done.stdout):
            raise Unreachable(" ".join((done.stderr + done.stdout).split()))
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


def submit(program: str, attempt: Callable[[], str], find: Callable[[], str | None]) -> str:
    """A submission that a silent scheduler is asked for again, for minutes.

    Args:
        program: the scheduler's, for the error.
        attempt: submits and gives what the program printed.
        find: gives the job's number where an earlier attempt was taken and its answer lost.

    Raises:
        EnvironmentProblem: no answer for minutes.
        subprocess.CalledProcessError: it was refused.
    """
    deadline = time.monotonic() + SUBMIT_SECONDS
    while True:
        try:
            return attempt()
        except Unreachable as error:
            if time.monotonic() > deadline:
                raise EnvironmentProblem(
                    f"{program}: no answer for {SUBMIT_SECONDS} s: {error}; give the same command "
                    "again when the scheduler answers"
                ) from error
        time.sleep(SUBMIT_PAUSE_SECONDS)
        if found := find():
            return found
