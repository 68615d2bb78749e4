"""Two processes in a group, as `DistributedDataParallel` needs them; started once for all tests."""

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from datetime import timedelta
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# A rank whose partner has failed must not wait for it for half an hour.
PATIENCE = timedelta(seconds=120)


def run_in_two_ranks(function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Call a module's function with the rank and `arguments` in either; returns both results, of tensors."""
    calls = [pool.submit(_rank, rank, function, folder, arguments) for rank, pool in enumerate(_pools())]
    for call in wait(calls, return_when=FIRST_EXCEPTION).done:
        call.result()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@cache
def _pools() -> list[ProcessPoolExecutor]:
    context = get_context("forkserver")
    context.set_forkserver_preload(["dpt"])  # imported once for both
    return [ProcessPoolExecutor(1, context) for _ in range(2)]


def _rank(rank: int, function: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    rendezvous = {"init_method": f"file://{folder}/rendezvous", "rank": rank, "world_size": 2}
    dist.init_process_group("gloo", timeout=PATIENCE, **rendezvous)
    try:
        torch.save(function(rank, *arguments), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
