"""The `ray` executor: Ray Data actors, anywhere in the cluster, make a rank's blocks.

Each rank has an ordered dataset of its own, made from its slice of the plan, so ranks need no coordination,
and starting at any step is starting the dataset there. (If one dataset were split among ranks, the sizes of
their blocks would decide which rank gets which.) Its rows are the steps at which tasks begin. An actor makes
some blocks per task; each travels as one row whose pixels lie in Ray's object store, and batches are views
of them.

Actors have their next task waiting: Ray Data checks its tasks ten times a second, and actors with one task at
a time would spend about a tenth of their time waiting for that. The rows lie in the object store from the
start, so nothing needs a CPU that the actors could hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from pipelines.loading import blocks
from pipelines.loading.blocks import Block, BlockMaker, BlockMemory, LoaderSettings
from pipelines.loading.crops import Crops
from pipelines.loading.shard_reader import binary_views

TASK_BLOCKS = 2
"""Blocks per task: consecutive ones share row groups, and a task costs some milliseconds of the consumer's
core."""

DATASET_TASKS = 1000
"""Tasks per dataset; those of the whole run would take minutes to list. The next dataset continues."""

START_SECONDS = 60
"""Seconds that actors may wait for CPUs of their own."""

_TASKS_IN_FLIGHT = 2
"""Tasks of an actor: the running one and the next."""


def ray_blocks(settings: LoaderSettings, actors: int) -> Iterator[Block]:
    """The blocks of a rank's `settings` in order, made by `actors` actors; Ray must be running.

    Their memory must not be written to.
    """
    stride = settings.steps_per_block * TASK_BLOCKS * DATASET_TASKS
    for start in range(settings.start, settings.steps, stride):
        for table in _tables(replace(settings, start=start), min(settings.steps, start + stride), actors):
            yield from _blocks(table)


def _tables(settings: LoaderSettings, stop: int, actors: int) -> Iterator[pa.Table]:
    """The blocks of the steps `settings.start` to `stop`, as tables of one row each.

    Actors request a CPU each if one is free. If training processes hold all, or other ranks' actors were
    faster, they would wait forever: then they run without.
    """
    if ray.available_resources().get("CPU", 0) >= 1:
        tables = _iterated(_dataset(settings, stop, actors, num_cpus=1))
        try:
            first = next(tables)
        except ray.exceptions.GetTimeoutError:
            pass
        else:
            yield from chain([first], tables)
            return
    yield from _iterated(_dataset(settings, stop, actors, num_cpus=0))


def _dataset(settings: LoaderSettings, stop: int, actors: int, num_cpus: int) -> ray.data.Dataset:
    starts = range(settings.start, stop, settings.steps_per_block * TASK_BLOCKS)
    dataset = ray.data.from_items(list(starts), override_num_blocks=len(starts))
    dataset.context.execution_options.preserve_order = True
    # Every block leaves its task unchanged; by default Ray Data would merge small ones by copying.
    dataset.context.target_max_block_size = 1
    dataset.context.enable_progress_bars = False
    dataset.context.wait_for_min_actors_s = START_SECONDS if num_cpus else -1
    pool = ray.data.ActorPoolStrategy(
        size=min(actors, len(starts)), max_tasks_in_flight_per_actor=_TASKS_IN_FLIGHT
    )
    options: dict[str, Any] = {"fn_constructor_args": (settings, stop), "compute": pool, "num_cpus": num_cpus}
    return dataset.map_batches(_Maker, batch_size=None, batch_format="pyarrow", **options)


def _iterated(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    return iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2))


class _Maker:
    """An actor: makes the blocks of its tasks, and keeps files open between them."""

    def __init__(self, settings: LoaderSettings, stop: int) -> None:
        self._settings, self._stop = settings, stop
        self._maker = BlockMaker(settings, BlockMemory(blocks.own_memory))

    def __call__(self, task: pa.Table) -> Iterator[pa.Table]:
        """Make the blocks of a task, as tables of one row each."""
        s = self._settings
        (start,) = task["item"].to_pylist()
        stop = min(start + TASK_BLOCKS * s.steps_per_block, self._stop)
        for first in range(start, stop, s.steps_per_block):
            block = self._maker.block(s, first)
            yield _table(block, s.crops)
            # Ray has copied it into its store.
            blocks.release(block.memory)


def _table(block: Block, crops: Crops) -> pa.Table:
    """A block as one row; its pixels are not copied."""
    _, size = blocks.block_bytes(len(block.sample_ids), crops)
    offsets = pa.py_buffer(np.asarray([0, size], np.int64))
    pixels = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(block.memory[:size])])
    of_samples = {"scale": block.scale, "dataset": block.dataset, "box": block.box.ravel()}
    columns = {name: pa.array([values]) for name, values in of_samples.items()}
    return pa.table({"pixels": pixels, **columns, "sample_ids": [block.sample_ids]})


def _blocks(table: pa.Table) -> Iterator[Block]:
    for batch in table.to_batches():
        of_samples, sample_ids = [batch[name] for name in ("scale", "dataset", "box")], batch["sample_ids"]
        for row, pixels in enumerate(binary_views(batch["pixels"])):
            assert pixels is not None  # every block has pixels
            scale, dataset, box = (np.array(column[row].values) for column in of_samples)
            names = sample_ids[row].as_py()
            yield Block(np.frombuffer(pixels, np.uint8), scale, dataset, box.reshape(-1, 4), names)
