"""Verbs about an experiment's submitted jobs; ``utils/submit.py`` submits them."""

import argparse
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

LOGS = "log"


def status_arguments(parser: argparse.ArgumentParser) -> None:
    _add_experiment(parser)


def status(args: argparse.Namespace) -> None:
    """Prints the status, with the last lines of the logs of what failed."""
    from espnet_prune.cluster.status import describe

    print(describe(args.experiment))


def jobs_arguments(parser: argparse.ArgumentParser) -> None:
    actions = "begin: end with an error while jobs are queued, else forget the old ones"
    parser.add_argument("action", choices=("begin", "list", "wait", "cancel"), help=actions)
    _add_experiment(parser)


def jobs(args: argparse.Namespace) -> int:
    """Does what is asked; exit status 1 where awaited jobs failed, or others weren't cancelled."""
    from espnet_prune.cluster import submit
    from espnet_prune.cluster.job import folders_below, read_job
    from espnet_prune.cluster.status import check_experiment

    if args.action == "begin":
        begin(args.experiment)
        return 0
    check_experiment(args.experiment)
    place = args.experiment.resolve()
    folders = folders_below(args.experiment / LOGS)
    if not folders:
        print(f"{args.experiment}: no jobs; what was made: espnet-prune status {place}")
    elif args.action == "list":
        print(describe(place, folders))
    elif args.action == "cancel":
        again = f"espnet-prune jobs cancel {place}"
        return 0 if submit.cancel(folders, active_only=True, again=again) else 1
    elif args.action == "wait":
        failures = submit.wait_or_cancel(folders)
        return submit.report(failures, sum(len(read_job(folder).tasks) for folder in folders))
    return 0


def begin(experiment: Path) -> None:
    """Makes way for new jobs, and the folder of their logs.

    Raises:
        ConfigError: jobs of this experiment are queued or run, which would write the same files.
    """
    from espnet_prune.cluster.job import folders_below, read_id
    from espnet_prune.cluster.submit import unfinished
    from espnet_prune.errors import ConfigError

    logs = experiment / LOGS
    active = unfinished(folders_below(logs))
    if active:
        numbers = " ".join(str(read_id(folder)) for folder in active)
        raise ConfigError(
            f"{experiment}: jobs of an earlier command are still queued or running: {numbers}; "
            f"wait for them, or `espnet-prune jobs cancel {experiment}`"
        )
    for folder in folders_below(logs):
        shutil.rmtree(folder)
    logs.mkdir(parents=True, exist_ok=True)


def describe(experiment: Path, folders: Sequence[Path]) -> str:
    """What the user of submitted jobs needs to know."""
    return (
        f"Submitted {len(folders)} jobs. They run whether or not you stay logged in; to resume "
        "after a failure, give the same command again.\n"
        f"Watch:  espnet-prune status {experiment}\n"
        f"Await:  espnet-prune jobs wait {experiment}\n"
        f"Cancel: espnet-prune jobs cancel {experiment}"
    )


def nodes_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, required=True, help="nodes of the job")
    parser.add_argument("--processes", type=int, required=True, help="processes on each node")
    parser.add_argument("verb", help="what the processes run: prune, for example")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")


def nodes(args: argparse.Namespace) -> None:
    """Becomes srun, so that it gets the signals; the job's first node runs this."""
    from espnet_prune.cluster.nodes import check_job, free_port, srun_command

    check_job(args.nodes, os.environ)
    endpoint = f"{socket.gethostname()}:{free_port()}"
    command = ["espnet_prune", args.verb, *args.arguments]
    words = srun_command(args.nodes, args.processes, command, endpoint, os.environ)
    sys.stdout.flush()
    os.execvp(words[0], words)


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", type=Path, metavar="exp/TAG", help="the experiment's folder")
