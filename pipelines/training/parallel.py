"""How the ranks share a model: each has a copy (DDP), or each has a shard of every parameter (FSDP2).

Either way batch normalisation is over the whole batch, for any number of ranks, on any device.
PyTorch's own `nn.SyncBatchNorm` is for accelerators only; on CPUs, where training is for tests and small
models, `CpuSyncBatchNorm` does the same, so that a run's curve does not depend on its number of workers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed
from ray.train.torch import prepare_model
from torch import Tensor, nn

import dpt
from pipelines.training.ranks import Ranks


def share_model(model: dpt.DPT, parallel: str, ranks: Ranks) -> nn.Module:
    """Move a model to this rank's device and share it with the other ranks.

    Args:
        model: changed in place; with `fsdp` sharded, the backbone's blocks gathered one at a time.
        parallel: `ddp` or `fsdp`, as in `TrainConfig`.
        ranks: this rank among all.

    Returns:
        the module to call in training: the DDP wrapper, or the model itself.
    """
    moved = prepare_model(model, parallel_strategy=None)
    if ranks.world_size > 1:
        synchronise_norms(model)
    if parallel == "fsdp":
        shard_model(model)
        return model
    wrapped: nn.Module = prepare_model(moved)
    return wrapped


def shard_model(model: dpt.DPT) -> None:
    """Leave each rank its shard of every parameter of `model`; the backbone is gathered by blocks."""
    from torch.distributed.fsdp import fully_shard  # takes a second, which other runs save

    for layer in model.repeated_layers():
        fully_shard(layer)
    fully_shard(model)


def is_sharded(module: nn.Module) -> bool:
    """Whether `module` was sharded by FSDP2, which is imported only then."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside the block every rank holds all parameters of `model` and may run it without the others."""
    sharded: list[Any] = [module for module in model.modules() if is_sharded(module)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()


def synchronise_norms(model: nn.Module) -> None:
    """Make all batch normalisation of `model`, in place, take its statistics over all ranks' images.

    Parameters and buffers remain the same tensors under the same names. On CPUs a norm that timm has fused
    with an activation keeps the statistics of its own rank; no model of the zoo has one.
    """
    if next(model.parameters()).device.type != "cpu":
        from timm.layers import convert_sync_batchnorm  # takes seconds to import, for GPUs only

        convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CpuSyncBatchNorm  # it has no state beyond that of its base class


def is_synchronised(module: nn.Module) -> bool:
    """Whether `module` takes its statistics over all ranks, so that all must run it equally often."""
    return isinstance(module, nn.SyncBatchNorm | CpuSyncBatchNorm)


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose batch is that of all ranks, which may have unequal shares of it.

    All ranks must run it equally often, if need be on an empty share.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, (B, C, h, w) → the same shape and dtype."""
        if not self.training or not torch.distributed.is_initialized():
            return super().forward(x)
        # Sums and their count add over ranks, means and variances of unequal shares do not. The variance is
        # then E[x²] − E[x]², which loses digits: hence float64.
        wide = x.double()
        count = wide.new_full((1,), x.numel() / x.shape[1])
        sums = _SumOverRanks.apply(
            torch.cat([wide.sum(dim=(0, 2, 3)), wide.square().sum(dim=(0, 2, 3)), count])
        )
        total, squares, number = sums.split([x.shape[1], x.shape[1], 1])
        mean = total / number
        variance = squares / number - mean.square()
        self._track(mean.detach(), variance.detach(), float(number.detach()))
        scale = (variance + self.eps).rsqrt() * self.weight
        normalised = (wide - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        return normalised.to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor, number: float) -> None:
        """Update the running statistics as `nn.BatchNorm2d` does: with the unbiased variance, n / (n − 1)."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        unbiased = variance * (number / max(1.0, number - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _SumOverRanks(torch.autograd.Function):
    """Sum over all ranks. Each rank's loss depends on it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        torch.distributed.all_reduce(gradient)
        return gradient
