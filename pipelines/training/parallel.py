"""How the ranks share a model: each has a copy (DDP), or each has a part of every parameter (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed
from ray.train.torch import prepare_model
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

import dpt


def share_model(model: dpt.DPT, parallel: str, world_size: int) -> nn.Module:
    """Put the model on this rank's device and share it with the others.

    Args:
        parallel: `ddp` or `fsdp`, as in `TrainConfig`. Sharding happens in place; the backbone's blocks are
            gathered one at a time.

    Returns:
        what is to be called for training: a wrapper, or the model itself.
    """
    moved = prepare_model(model, parallel_strategy=None)
    if world_size > 1:
        synchronise_norms(model)
    if parallel == "fsdp":
        for module in model.backbone.modules():
            if isinstance(module, nn.ModuleList):
                for block in module:
                    fully_shard(block)
        fully_shard(model)
        return model
    wrapped: nn.Module = prepare_model(moved)
    return wrapped


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside the block every rank has all parameters, and may run the model without the others."""
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
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
    """Let all batch normalisation of a model, in place, take its statistics over all ranks' images.

    Parameters and buffers stay the very same tensors, under the same names. On CPUs a norm that timm has
    fused with an activation keeps the statistics of its own rank; no model of the table has one.
    """
    if next(model.parameters()).device.type != "cpu":
        from timm.layers import convert_sync_batchnorm  # seconds, for what CPUs have no use for

        convert_sync_batchnorm(model)
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, _shared(child))


def is_synchronised(module: nn.Module) -> bool:
    """Whether a module takes its statistics over all ranks, so that they must run it equally often."""
    return isinstance(module, nn.SyncBatchNorm | CpuSyncBatchNorm)


def _shared(norm: nn.BatchNorm2d) -> CpuSyncBatchNorm:
    shared = CpuSyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine)
    shared.weight, shared.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers():
        setattr(shared, name, buffer)
    return shared.train(norm.training)


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose batch is that of all ranks, which may have unequal shares of it.

    All ranks must run it equally often, if need be on no image at all.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        if not self.training or not torch.distributed.is_initialized():
            return super().forward(x)
        # In float64 the variance may be a difference of sums.
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
        """Move the running statistics, as `nn.BatchNorm2d` does: of the variance, the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        unbiased = variance * (number / max(1.0, number - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _SumOverRanks(torch.autograd.Function):
    """Sum over all ranks; what each rank's loss wants of it is summed over all ranks, too."""

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
