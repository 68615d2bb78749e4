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

from pipelines.loading.blocks import (
    Block,
    BlockMaker,
    BlockMemory,
    LoaderSettings,
    Memory,
    block_bytes,
    own_memory,
    released_with,
)

_PREFETCH = 2
"""Blocks that a process is ahead of the rank."""

_PIECES = _PREFETCH + 1
"""Pieces of memory of a process, unless the rank keeps batches: of the blocks ahead and of the rank's own."""


_NOTHING = np.empty(0, np.uint8)


def local_blocks(settings: LoaderSettings, processes: int) -> Iterator[Block]:
    """A rank's blocks in order, made by so many processes; by this one if 0.

    Yields:
        blocks whose memory is used again when it is gone (`pipelines.loading.blocks.released_with`).
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
    mapped: deque[torch.Tensor] = deque(maxlen=_PIECES * max(1, processes))
    for memory, block in loader:
        mapped.append(memory)
        yield replace(
            block, memory=released_with(memory.numpy(), block_bytes(len(block.sample_ids), settings.crops))
        )


def _clean_context() -> Any:
    """Processes are forked from one that has done nothing but import this module.

    A training process has threads (Ray, gloo); forking it could copy a lock that is held. Starting each from
    nothing would import PyTorch as often as there are processes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class _PlanBlocks(IterableDataset[tuple[torch.Tensor, Block]]):
    """A rank's blocks, dealt out to loading processes in turn; their memory apart, as the tensor it is."""

    def __init__(self, settings: LoaderSettings) -> None:
        self._settings = settings

    def __iter__(self) -> Iterator[tuple[torch.Tensor, Block]]:
        s = self._settings
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        shared = _SharedMemory()
        maker = BlockMaker(s, BlockMemory(shared if worker else own_memory))
        for first in range(s.start + number * s.steps_per_block, s.steps, count * s.steps_per_block):
            block = maker.block(s, first)
            memory = shared.tensor(block.memory) if worker else torch.from_numpy(block.memory)
            yield memory, replace(block, memory=_NOTHING)


def _unchanged(item: Any) -> Any:
    """Instead of DataLoader's default, which makes tensors of arrays: each would cross on its own."""
    return item


class _SharedMemory:
    """Makes memory that the training process maps instead of copying, as DataLoader's collation has it."""

    def __init__(self) -> None:
        self._tensors: dict[int, torch.Tensor] = {}

    def __call__(self, size: int) -> Memory:
        tensor = torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size))
        self._tensors[tensor.data_ptr()] = tensor
        return tensor.numpy()

    def tensor(self, memory: Memory) -> torch.Tensor:
        """The tensor of memory that was made here: only as such it is sent without a copy."""
        return self._tensors[memory.ctypes.data]
