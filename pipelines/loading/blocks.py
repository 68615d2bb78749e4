"""The sample plan executed: a rank's share of some consecutive steps, decoded into one piece of memory.

A block is what crosses from a loading process to the training process, so all its pixels lie in one buffer:
one file descriptor, or one object of Ray's store, a block. Its samples of one dataset lie in few row groups,
which are read once for all of them.

No PyTorch here: processes that only make blocks start in a third of the time and memory without it.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.manifest import open_datasets
from pipelines.loading.crops import Crops
from pipelines.loading.shard_reader import ShardReader
from pipelines.sampling.plan import SamplePlan, Stage
from pipelines.sampling.streams import augmentation_draws


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """What one rank's stream of batches is a function of.

    Attributes:
        uris: the datasets' version folders, sorted by dataset name.
        split: which split of them.
        stages: the run's, which say how many steps it has and how datasets are mixed in each.
        seed: of order and augmentation.
        batch_size: of the global batch, over all ranks.
        crops: what becomes of a row.
        start: the first step to produce.
        rank, world_size: which slice of each global batch; slices differ by one sample at most.
        block_samples: samples of a block, about. More share more reads, as each of two blocks that need a
            row group reads it whole; fewer start sooner.
    """

    uris: Sequence[str]
    split: str
    stages: Sequence[Stage]
    seed: int
    batch_size: int
    crops: Crops
    start: int
    rank: int
    world_size: int
    block_samples: int = 128

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return sum(stage.steps for stage in self.stages)

    @property
    def slice(self) -> tuple[int, int]:
        """The rank's first sample of a global batch, and its last (exclusive)."""
        first, last = (self.batch_size * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return first, last

    @property
    def steps_per_block(self) -> int:
        """Steps in one block."""
        return max(1, self.block_samples * self.world_size // self.batch_size)


@dataclass(slots=True)
class Block:
    """A rank's share of consecutive steps.

    Attributes:
        memory: uint8: the targets of all samples, then all their images, and then whether it is in use.
        scale: (n,) float64.
        dataset: (n,) int64.
        sample_ids: n names.
    """

    memory: Memory
    scale: NDArray[np.float64]
    dataset: NDArray[np.int64]
    sample_ids: list[str]


def block_bytes(samples: int, crops: Crops) -> int:
    """Bytes of the pixels of so many samples."""
    return samples * math.prod(crops.size) * (crops.target_dtype.itemsize + 3)


def target_bytes(samples: int, crops: Crops) -> int:
    """Bytes of their targets, which come first."""
    return samples * math.prod(crops.size) * crops.target_dtype.itemsize


class BlockMaker:
    """Makes blocks; holds open files and caches, which do not depend on rank and start.

    Args:
        memory: where they are made; who is given a block releases its piece.
    """

    def __init__(self, settings: LoaderSettings, memory: BlockMemory) -> None:
        self._memory = memory
        columns = settings.crops.columns
        self._reader = ShardReader(open_datasets(list(settings.uris)), settings.split, columns)
        self._plan = SamplePlan(self._reader.row_groups, settings.stages, settings.batch_size, settings.seed)

    def block(self, s: LoaderSettings, first: int) -> Block:
        """The block of rank `s.rank` that begins at step `first`."""
        steps = np.arange(first, min(first + s.steps_per_block, s.steps))
        positions = (steps[:, None] * s.batch_size + np.arange(*s.slice)).ravel()
        draws = self._plan.draws(positions)
        random = augmentation_draws(s.seed, positions, s.crops.draws)
        memory = self._memory.take(block_bytes(len(positions), s.crops))
        targets, images = _views(memory, len(positions), s.crops)
        scale, sample_ids = np.full(len(positions), np.nan), [""] * len(positions)
        # A row group's rows one after the other, while the processor's cache has them.
        for i in np.lexsort((draws.row_group, draws.dataset)):
            row = self._reader.row(draws.dataset[i], draws.row_group[i], draws.row[i])
            s.crops(row, random[i], images[i], targets[i])
            sample_ids[i] = row["sample_id"]
            if row["scale"] is not None:
                scale[i] = row["scale"]
        return Block(memory, scale, draws.dataset, sample_ids)


def _views(memory: Memory, samples: int, crops: Crops) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Targets (n, h, w) and images (n, h, w, 3) in a block's memory."""
    split, end = target_bytes(samples, crops), block_bytes(samples, crops)
    targets = memory[:split].view(crops.target_dtype).reshape(samples, *crops.size)
    return targets, memory[split:end].reshape(samples, *crops.size, 3)


Memory = NDArray[np.uint8]


_MARK = 8
"""Bytes behind each block that say whether it is in use."""


class BlockMemory:
    """Pieces of memory for blocks.

    Args:
        make: makes one: so many bytes, uint8.
    """

    def __init__(self, make: Callable[[int], Memory]) -> None:
        self._make = make
        self._pieces: list[Memory] = []

    def take(self, size: int) -> Memory:
        """A piece with room for so many bytes and their mark, in use from now on until it is released."""
        for index, piece in enumerate(self._pieces):
            if not piece[-1]:
                if len(piece) < size + _MARK:
                    piece = self._pieces[index] = self._make(size + _MARK)
                break
        else:
            piece = self._make(size + _MARK)
            self._pieces.append(piece)
        piece[-1] = 1
        return piece


def own_memory(size: int) -> Memory:
    """Memory of this process."""
    return np.empty(size, np.uint8)


def release(piece: Memory) -> None:
    """Allow that the piece is taken again."""
    piece[-1] = 0


def released_with(piece: Memory, size: int) -> Memory:
    """The first `size` bytes of a piece, which is released when they are gone.

    What is made of them must hold this very array, as tensors do: a NumPy view holds the whole piece instead.
    """
    content = piece[:size]
    weakref.finalize(content, release, piece).atexit = False
    return content
