"""One training process among all of a run, and what they compute together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import ray.train
import torch
import torch.distributed as dist
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import get_device
from torch import Tensor

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process in a group of `world_size`: its number is `rank`, from 0. Alone, every method is a no-op.

    All ranks must call a method, in the same order. Tensors are on the device that the group reduces on: the
    rank's GPU with NCCL.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes checkpoints, metrics and progress for all."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum of `values` over all ranks; `values` itself is left as it is."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max(self, values: Tensor) -> Tensor:
        """Elementwise maximum of `values` over all ranks; `values` itself is left as it is."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def _reduce(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values, operation)
        return values

    def gather(self, value: Value) -> list[Value]:
        """Each rank's picklable `value`, by rank, on every rank."""
        values = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Value) -> Value:
        """Rank 0's picklable `value`, on every rank; the others' is ignored."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]


@contextmanager
def process_group(use_gpu: bool, seconds: float) -> Iterator[None]:
    """Inside the block the ranks that Ray Train started are PyTorch's process group.

    Args:
        use_gpu: by NCCL, each on its GPU; else by gloo.
        seconds: how long a collective waits for the other ranks.
    """
    context, timeout = ray.train.get_context(), timedelta(seconds=seconds)
    rank, size = context.get_world_rank(), context.get_world_size()
    os.environ["LOCAL_RANK"] = str(context.get_local_rank())  # read by `fully_shard`
    device = get_device() if use_gpu else None
    if device is not None:
        torch.cuda.set_device(device)
    here, store = ray.util.get_node_ip_address(), None
    if rank == 0:
        store = dist.TCPStore(here, 0, is_master=True, wait_for_workers=False, timeout=timeout)
    host, port = broadcast_from_rank_zero((here, store.port) if store else None)
    store = store or dist.TCPStore(host, port, timeout=timeout)
    # Without its device NCCL takes the GPU of the rank's number on its node, of those that the rank sees.
    dist.init_process_group(
        "nccl" if use_gpu else "gloo", store=store, rank=rank, world_size=size, timeout=timeout,
        device_id=device,
    )  # fmt: skip
    yield
    # After an exception the others may wait in a collective: Ray Train ends all processes.
    dist.destroy_process_group()
