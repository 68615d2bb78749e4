"""The `local` executor: DataLoader worker processes beside a rank make its blocks."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipelines.blocks import Block, BlockMaker, LoaderSettings, MemoryRing

_PREFETCH = 2
"""Blocks that a process is ahead of the rank."""

_RING = _PREFETCH + 1
"""Blocks of memory of a process. It starts a block when the rank got the one `_PREFETCH` before it, so what
it writes over is older still, and the rank is done with that."""


def local_blocks(settings: LoaderSettings, processes: int) -> Iterator[Block]:
    """A rank's blocks in order, made by so many processes; by this one if 0.

    Yields:
        blocks that are valid until the next one is asked for.
    """
    loader = DataLoader(
        _PlanBlocks(settings),
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=processes,
        multiprocessing_context=_clean_context() if processes else None,
        prefetch_factor=_PREFETCH if processes else None,
    )
    # What is mapped stays mapped: the same memory comes again.
    mapped: deque[torch.Tensor] = deque(maxlen=_RING * max(1, processes))
    for item in loader:
        mapped.append(item[0])
        yield Block(*item)


def _clean_context() -> Any:
    """Processes are forked from one that has done nothing but import this module.

    A training process has threads (Ray, gloo); forking it could copy a lock that is held. Starting each from
    nothing would import PyTorch as often as there are processes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class _PlanBlocks(IterableDataset[tuple[Any, ...]]):
    """A rank's blocks, dealt out to loading processes in turn."""

    def __init__(self, settings: LoaderSettings) -> None:
        self._settings = settings

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        s = self._settings
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        maker = BlockMaker(s, MemoryRing(_RING, shared_memory if worker else own_memory))
        for first in range(s.start + number * s.steps_per_block, s.steps, count * s.steps_per_block):
            block = maker.block(s, first)
            yield block.pixels, block.scale, block.dataset, block.sample_ids


def _unchanged(item: Any) -> Any:
    """Instead of DataLoader's default, which makes tensors of arrays: each would cross on its own."""
    return item


def own_memory(size: int) -> torch.Tensor:
    """Memory of this process."""
    return torch.empty(size, dtype=torch.uint8)


def shared_memory(size: int) -> torch.Tensor:
    """Memory that the training process maps instead of copying, as DataLoader's own collation has it."""
    return torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size))
