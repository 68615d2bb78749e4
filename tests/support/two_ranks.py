"""Two processes in a group, as `DistributedDataParallel` needs them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_in_two_ranks(function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Call a module's function with the rank and `arguments` in either; returns both results, of tensors."""
    mp.spawn(_rank, args=(function, folder, arguments), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _rank(rank: int, function: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(function(rank, *arguments), folder / f"{rank}.pt")
    dist.destroy_process_group()
