"""The submitted jobs of an experiment: makes sure that there are none, lists, awaits, cancels."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_prune.cli import run_main

LOGS = "log"


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    actions = "begin: end with an error while jobs are queued, else forget the old ones"
    parser.add_argument("action", choices=("begin", "list", "wait", "cancel"), help=actions)
    parser.add_argument("experiment", type=Path, metavar="exp/TAG")
    return parser


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
            f"wait for them, or `python -m espnet_prune.cli.jobs cancel {experiment}`"
        )
    for folder in folders_below(logs):
        shutil.rmtree(folder)
    logs.mkdir(parents=True, exist_ok=True)


def describe(experiment: Path, folders: Sequence[Path]) -> str:
    """What the user of submitted jobs needs to know."""
    numbers = f"{len(folders)} jobs"
    return (
        f"Submitted {numbers}. They run whether or not you stay logged in; to resume after a "
        "failure, give the same command again.\n"
        f"Watch:  python -m espnet_prune.cli.status {experiment.resolve()}\n"
        f"Await:  python -m espnet_prune.cli.jobs wait {experiment.resolve()}\n"
        f"Cancel: python -m espnet_prune.cli.jobs cancel {experiment.resolve()}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Does what is asked; exit status 1 where awaited jobs failed, or others weren't cancelled."""
    from espnet_prune.cluster import submit
    from espnet_prune.cluster.job import folders_below, read_job
    from espnet_prune.cluster.status import check_experiment

    args = get_parser().parse_args(argv)
    if args.action == "begin":
        begin(args.experiment)
        return 0
    check_experiment(args.experiment)
    folders = folders_below(args.experiment / LOGS)
    if not folders:
        watch = f"python -m espnet_prune.cli.status {args.experiment.resolve()}"
        print(f"{args.experiment}: no jobs; what was made: {watch}")
    elif args.action == "list":
        print(describe(args.experiment, folders))
    elif args.action == "cancel":
        again = f"python -m espnet_prune.cli.jobs cancel {args.experiment.resolve()}"
        return 0 if submit.cancel(folders, active_only=True, again=again) else 1
    elif args.action == "wait":
        failures = submit.wait_or_cancel(folders)
        return submit.report(failures, sum(len(read_job(folder).tasks) for folder in folders))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
