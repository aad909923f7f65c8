"""A training on several nodes of a Slurm job: srun starts one torchrun on each.

The rendezvous is on the node that runs srun, which is the job's first, as Slurm starts a batch
script there. Nodes share the file system, so that all see the file that asks a training to stop;
when a process or a node is lost, all end, and the job that is queued again goes on from the
checkpoint.
"""

import socket
import sys
from collections.abc import Mapping, Sequence

from espnet_prune.errors import EnvironmentProblem


def check_job(nodes: int, environment: Mapping[str, str]) -> None:
    """Makes sure that this is a Slurm job of so many nodes.

    Raises:
        EnvironmentProblem: it is none, or has another number.
    """
    there = environment.get("SLURM_JOB_NUM_NODES")
    if there is None:
        raise EnvironmentProblem(
            f"--nodes {nodes}: this is no Slurm job; give the recipe --cmd_backend slurm"
        )
    if int(there) != nodes:
        raise EnvironmentProblem(
            f"--nodes {nodes}: the job has {there}; where cuda_cmd is set by hand, add "
            f"--nodes {nodes} to it"
        )


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


def srun_command(
    nodes: int, processes: int, command: Sequence[str], endpoint: str, environment: Mapping
) -> list[str]:
    """The whole command line.

    Args:
        nodes: nodes of the job.
        processes: on each node.
        command: module and arguments.
        endpoint: host and port of the rendezvous.
        environment: the job's; srun doesn't take over its processors for each task by itself.
    """
    restart = environment.get("SLURM_RESTART_COUNT", "0")
    return [
        *("srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"),
        f"--cpus-per-task={environment.get('SLURM_CPUS_PER_TASK', '1')}",
        *("--kill-on-bad-exit=1", "--export=ALL"),
        *(sys.executable, "-m", "torch.distributed.run"),
        *(f"--nnodes={nodes}", f"--nproc-per-node={processes}", "--rdzv-backend=c10d"),
        f"--rdzv-id={environment['SLURM_JOB_ID']}.{restart}",
        f"--rdzv-endpoint={endpoint}",
        *("-m", *command),
    ]
