"""How the ranks share a model: each has a copy (DDP), or each has a part of every parameter (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray.train.torch import prepare_model
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

import dpt
from pipelines.training.synchronised_norm import synchronise_norms


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
