"""Gradients between processes in fewer bytes, by the hooks of torch's DistributedDataParallel.

What may be left out of the traffic of a distributed training is the question of Rudakov et al. 2024
(arXiv 2401.07788), there between the stages of a pipeline, whose activations don't exist here:

- ``fp16``: every number in two bytes, by torch's own hook;
- ``powersgd``: low-rank factors (Vogels et al. 2019, arXiv 1905.13727), by torch's own hook;
- ``topk``: the largest numbers of each bucket with their places; what was left out is added to the
  next update's (error feedback).

What is left over for the next update is in no checkpoint, so a training that is resumed goes on
without it.
"""

import logging
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from espnet_prune.io_atomic import write_json
from espnet_prune.methods.options import GradientsConfig
from espnet_prune.train.distributed import is_first

logger = logging.getLogger(__name__)
FILE = "traffic.json"
ATTRIBUTE = "espnet_prune_traffic"
POWERSGD_STARTS = 2  # torch's hook: the first updates are sent whole, while buckets are made
POWERSGD_GUARD = 1e-8  # for gradients of a lower rank than the factors
PLACE_BYTES = 4


class Traffic:
    """A hook, and how many bytes it sent for each process.

    Args:
        config: which hook.

    Attributes:
        sent: bytes so far.
        whole: bytes that the same gradients have.
    """

    def __init__(self, config: GradientsConfig) -> None:
        self.config = config
        self.sent = self.whole = 0
        self.left: dict[int, Tensor] = {}
        self.powersgd = None
        if config.kind == "powersgd":
            self.powersgd = powerSGD_hook.PowerSGDState(
                None,
                matrix_approximation_rank=config.rank,
                start_powerSGD_iter=POWERSGD_STARTS,
                orthogonalization_epsilon=POWERSGD_GUARD,
            )

    def send(self, state: None, bucket: distributed.GradBucket) -> Future[Tensor]:
        """Sends one bucket of gradients; gives their mean over all processes."""
        buffer = bucket.buffer()
        self.whole += buffer.numel() * buffer.element_size()
        if self.config.kind == "fp16":
            self.sent += buffer.numel() * 2
            return default_hooks.fp16_compress_hook(distributed.group.WORLD, bucket)
        if self.powersgd is not None:
            return self._powersgd(bucket)
        return self._topk(bucket)

    def _powersgd(self, bucket: distributed.GradBucket) -> Future[Tensor]:
        state, buffer = self.powersgd, bucket.buffer()
        before = state.total_numel_after_compression
        result = powerSGD_hook.powerSGD_hook(state, bucket)
        numbers = state.total_numel_after_compression - before or buffer.numel()
        self.sent += numbers * buffer.element_size()
        return result

    def _topk(self, bucket: distributed.GradBucket) -> Future[Tensor]:
        buffer, index = bucket.buffer(), bucket.index()
        left = self.left.get(index)
        whole = buffer + left if left is not None and len(left) == len(buffer) else buffer.clone()
        number = max(1, round(self.config.share * len(whole)))
        places = whole.abs().topk(number).indices.to(torch.int32)
        values = whole[places.long()]
        whole[places.long()] = 0.0
        self.left[index] = whole
        self.sent += number * (values.element_size() + PLACE_BYTES)
        mean = torch.zeros_like(buffer)
        for theirs, where in zip(_gathered(values), _gathered(places), strict=True):
            mean.index_add_(0, where.long(), theirs)
        result: Future[Tensor] = Future()
        result.set_result(mean / distributed.get_world_size())
        return result


def _gathered(tensor: Tensor) -> list[Tensor]:
    """Every process's, of the same shape."""
    found = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, tensor)
    return found


def compress_traffic(model: nn.Module) -> None:
    """Registers the hook that a distributed ``DistilledModel``'s options ask for, once."""
    options = getattr(getattr(model, "module", None), "options", None)
    config = getattr(options, "gradients", None)
    if config is None or config.kind == "none" or hasattr(model, ATTRIBUTE):
        return
    assert isinstance(model, DistributedDataParallel)
    traffic = Traffic(config)
    setattr(model, ATTRIBUTE, traffic)
    model.register_comm_hook(None, traffic.send)


def record_traffic(model: nn.Module, folder: Path) -> None:
    """Writes and logs what was sent since this process began, if anything was compressed."""
    traffic = getattr(model, ATTRIBUTE, None)
    if traffic is None or not is_first():
        return
    share = traffic.sent / max(1, traffic.whole)
    write_json(folder / FILE, {"sent_bytes": traffic.sent, "whole_bytes": traffic.whole})
    logger.info("gradients: %.1f MB sent, %.1f%% of all", traffic.sent / 1e6, 100 * share)
