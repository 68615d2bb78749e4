"""One training process among all of a run, and what they compute together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist
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
