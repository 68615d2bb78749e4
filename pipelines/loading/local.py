"""The `local` executor: DataLoader worker processes beside a rank make its blocks."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipelines.loading import blocks
from pipelines.loading.blocks import Block, BlockMaker, BlockMemory, LoaderSettings, Memory

_PREFETCH = 2
"""Blocks that a process makes ahead of the rank."""

_PIECES = _PREFETCH + 1
"""Pieces of memory of a process, for the blocks ahead and the rank's current one, unless it keeps batches."""

_NOTHING = np.empty(0, np.uint8)


def local_blocks(settings: LoaderSettings, processes: int) -> Iterator[Block]:
    """The blocks of a rank's `settings` in order, made by `processes` worker processes; by this one if 0.

    Their memory is reused when it is gone (`pipelines.loading.blocks.released_with`).
    """
    # Fork from a server process that has only imported this module. A training process has threads (Ray,
    # gloo); forking it could copy a held lock. Spawning would import PyTorch in every process.
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    loader = DataLoader(
        _PlanBlocks(settings),
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=processes,
        multiprocessing_context=context if processes else None,
        prefetch_factor=_PREFETCH if processes else None,
    )
    # Held, so that memory that comes again is still mapped.
    mapped: deque[torch.Tensor] = deque(maxlen=_PIECES * max(1, processes))
    for memory, block in loader:
        mapped.append(memory)
        _, end = blocks.block_bytes(len(block.sample_ids), settings.crops)
        yield replace(block, memory=blocks.released_with(memory.numpy(), end))


class _PlanBlocks(IterableDataset[tuple[torch.Tensor, Block]]):
    """A rank's blocks, one worker after the other, each with its memory apart, as a tensor."""

    def __init__(self, settings: LoaderSettings) -> None:
        self._settings = settings

    def __iter__(self) -> Iterator[tuple[torch.Tensor, Block]]:
        s = self._settings
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        shared = _SharedMemory()
        maker = BlockMaker(s, BlockMemory(shared if worker else blocks.own_memory))
        # Worker w of W makes blocks w, w + W, w + 2W, …: DataLoader takes from its workers in turn.
        for first in range(s.start + number * s.steps_per_block, s.steps, count * s.steps_per_block):
            block = maker.block(s, first)
            memory = shared.tensor(block.memory) if worker else torch.from_numpy(block.memory)
            yield memory, replace(block, memory=_NOTHING)


def _unchanged(item: Any) -> Any:
    """Instead of DataLoader's default, which makes tensors of arrays: each would be sent on its own."""
    return item


class _SharedMemory:
    """Allocates memory that the training process maps instead of copying, as DataLoader's collation does."""

    def __init__(self) -> None:
        self._tensors: dict[int, torch.Tensor] = {}

    def __call__(self, size: int) -> Memory:
        tensor = torch.empty(size, dtype=torch.uint8).share_memory_()
        self._tensors[tensor.data_ptr()] = tensor
        return tensor.numpy()

    def tensor(self, memory: Memory) -> torch.Tensor:
        """The tensor of memory that was allocated here: only a tensor is sent without a copy."""
        return self._tensors[memory.ctypes.data]
