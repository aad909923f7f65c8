"""Trains on several nodes of a Slurm job, whose first node runs this."""

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from espnet_prune.cli import run_main


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, required=True, help="nodes of the job")
    parser.add_argument("--processes", type=int, required=True, help="processes on each node")
    parser.add_argument("module", help="what the processes run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Becomes srun, so that it gets the signals."""
    from espnet_prune.cluster.nodes import check_job, free_port, srun_command

    args = get_parser().parse_args(argv)
    check_job(args.nodes, os.environ)
    endpoint = f"{socket.gethostname()}:{free_port()}"
    command = [args.module, *args.arguments]
    words = srun_command(args.nodes, args.processes, command, endpoint, os.environ)
    sys.stdout.flush()
    os.execvp(words[0], words)


if __name__ == "__main__":
    sys.exit(run_main(main))
