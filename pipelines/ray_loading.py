"""The `ray` executor: Ray Data tasks, anywhere in the cluster, make a rank's blocks.

Each rank has an ordered dataset of its own, made from its slice of the plan, so ranks need no agreement, and
starting at any step is starting the dataset there. (Splitting one dataset among ranks would let their blocks'
sizes decide who gets what.) A task makes some blocks after each other; each travels as one row whose pixels
lie in Ray's object store, and is copied from there batch by batch.

The tasks are read tasks of a custom datasource: one operator, hence nothing else that could wait for a CPU
that these hold.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from pipelines.blocks import Block, BlockMaker, LoaderSettings, MemoryRing, block_bytes
from pipelines.local_loading import own_memory

TASK_BLOCKS = 2
"""Blocks that a task makes: starting one costs some milliseconds of the consumer's core."""

DATASET_TASKS = 1000
"""Tasks of one dataset; the whole run's would take minutes to list. The next dataset starts where it ends."""


def ray_blocks(settings: LoaderSettings, tasks: int) -> Iterator[Block]:
    """A rank's blocks in order, made by `tasks` Ray tasks at a time; Ray must be running.

    Yields:
        blocks whose memory must not be written to.
    """
    stride = settings.steps_per_block * TASK_BLOCKS * DATASET_TASKS
    for start in range(settings.start, settings.steps, stride):
        dataset = _dataset(replace(settings, start=start), min(settings.steps, start + stride), tasks)
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2):
            yield from _blocks(table)


def _dataset(settings: LoaderSettings, stop: int, tasks: int) -> ray.data.Dataset:
    source = _Plan(settings, stop)
    dataset = ray.data.read_datasource(
        source,
        override_num_blocks=len(source.starts),
        num_cpus=1 if _has_free_cpu() else 0,
        concurrency=min(tasks, len(source.starts)),
    )
    dataset.context.execution_options.preserve_order = True
    # Every block leaves its task as it is; the default would copy small ones together.
    dataset.context.target_max_block_size = 1
    dataset.context.enable_progress_bars = False
    return dataset


def _has_free_cpu() -> bool:
    """Whether tasks may ask for a CPU: where the training processes hold all, they would wait for ever."""
    return bool(ray.available_resources().get("CPU", 0) >= 1)


class _Plan(Datasource):
    """The steps `settings.start` to `stop` of a rank, some blocks a read task."""

    def __init__(self, settings: LoaderSettings, stop: int) -> None:
        self._settings, self._stop = settings, stop
        self.starts = range(settings.start, stop, settings.steps_per_block * TASK_BLOCKS)

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all samples, decoded."""
        s = self._settings
        first, last = s.slice
        return block_bytes((self._stop - s.start) * (last - first), s.crops)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task for every few blocks, whatever `parallelism` is asked for."""
        size = self.estimate_inmemory_data_size() // len(self.starts)
        metadata = BlockMetadata(num_rows=None, size_bytes=size, exec_stats=None, input_files=None)
        return [
            ReadTask(
                partial(_read, self._settings, start, min(start + self.starts.step, self._stop)), metadata
            )
            for start in self.starts
        ]


def _read(settings: LoaderSettings, start: int, stop: int) -> Iterator[pa.Table]:
    """Make the blocks of the steps `start` to `stop`, as tables of one row each."""
    maker = _maker(pickle.dumps(replace(settings, start=0, rank=0)))
    for first in range(start, stop, settings.steps_per_block):
        yield _table(maker.block(settings, first))


@lru_cache(maxsize=1)
def _maker(settings: bytes) -> BlockMaker:
    """Kept from task to task of a worker process, with its open files; the ranks of a run share it."""
    # Ray copies a block into its store before it asks for the next; two make that sure.
    return BlockMaker(pickle.loads(settings), MemoryRing(2, own_memory))


def _table(block: Block) -> pa.Table:
    """A block as one row; its pixels are not copied."""
    size = len(block.pixels)
    offsets = pa.py_buffer(np.asarray([0, size], np.int64))
    pixels = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(block.pixels.numpy())])
    return pa.table(
        {
            "pixels": pixels,
            "scale": pa.array([block.scale]),
            "dataset": pa.array([block.dataset]),
            "sample_ids": [block.sample_ids],
        }
    )


def _blocks(table: pa.Table) -> Iterator[Block]:
    for pixels, scale, dataset, sample_ids in zip(*(column for column in table.columns), strict=True):
        with warnings.catch_warnings():
            # The object store's memory is read-only, and nobody writes to it.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            memory = torch.from_numpy(np.frombuffer(pixels.as_buffer(), np.uint8))
        yield Block(memory, np.array(scale.values), np.array(dataset.values), sample_ids.as_py())
