"""Training in several processes, started by torchrun: who writes, and means over all of them."""

import os
from collections.abc import Mapping

import torch
from torch import distributed

from espnet_prune.errors import ConfigError, EnvironmentProblem


def process_rank() -> int:
    """This process's number; 0 where there is one process."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first() -> bool:
    """Whether this is the one process that writes files."""
    return process_rank() == 0


def check_gpu(ngpu: int) -> None:
    """Refuses GPUs that this process can't train on.

    Raises:
        ConfigError: several for one process, whose copies of the model would miss the masks.
        EnvironmentProblem: there is none.
    """
    if ngpu not in (0, 1):
        raise ConfigError(
            f"--ngpu {ngpu}: a process trains on one GPU; give 0 or 1, and start several processes "
            "by torchrun or by the recipe's run.sh --ngpu"
        )
    if ngpu and not torch.cuda.is_available():
        raise EnvironmentProblem(
            "--ngpu 1: PyTorch sees no GPU here; give --ngpu 0 to train on the CPU, or use an "
            "environment with a PyTorch for this machine's GPU (ESPNET_PRUNE_CURRENT_ENV=1)"
        )


def check_gpus(number: int) -> None:
    """Refuses more GPUs than this machine has, before a process is started for each.

    Raises:
        EnvironmentProblem: there are fewer.
    """
    found = torch.cuda.device_count()
    if found < number:
        raise EnvironmentProblem(
            f"--ngpu {number}: PyTorch sees {found} GPUs here; give --ngpu {found}, or use an "
            "environment with a PyTorch for this machine's GPUs (ESPNET_PRUNE_CURRENT_ENV=1)"
        )


def options(ngpu: int) -> dict:
    """ESPnet's options for the processes that there are.

    Args:
        ngpu: 0 for the CPU.
    """
    if processes() == 1:
        return {}
    # gates and multipliers of a part that is switched off get no gradient in some updates
    return {"dist_backend": "nccl" if ngpu else "gloo", "unused_parameters": True}


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def leave() -> None:
    """Ends this process's part in the group."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def mean_over_processes(numbers: Mapping[str, float], weight: float) -> dict[str, float]:
    """Means over all processes' batches.

    Args:
        numbers: sums of this process's batch, the same keys in every process.
        weight: its number of utterances.

    Returns:
        The means, weighted by utterances; ``numbers`` itself in one process.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return dict(numbers)
    on_gpu = distributed.get_backend() == "nccl"
    sums = torch.tensor([*(n * weight for n in numbers.values()), weight], dtype=torch.float64)
    sums = sums.to("cuda") if on_gpu else sums
    distributed.all_reduce(sums)
    *totals, weights = sums.tolist()
    return {name: total / weights for name, total in zip(numbers, totals, strict=True)}
