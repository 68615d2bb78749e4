"""The sample plan executed: a rank's share of consecutive steps, decoded into one piece of memory, a block.

A block is what crosses from a loading process to the training process, so all its pixels lie in one buffer:
one file descriptor, or one object of Ray's store, per block. Its samples of one dataset lie in few row
groups, each of which is read once.

Fresh pages cost half as much time as decoding, so a process that makes blocks reuses their memory. The last
bytes of each piece say whether it is in use; if the training process maps the piece, it clears them when the
last tensor over it is gone. So batches are views, nothing is copied, and keeping a batch keeps its memory.

No PyTorch here: processes that only make blocks start in a third of the time and memory without it.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from datasets_prep.manifest import open_datasets
from pipelines.loading.crops import Crops
from pipelines.loading.perturbation import Perturbation
from pipelines.loading.rows import Row
from pipelines.loading.shard_reader import ShardReader
from pipelines.sampling.plan import Draws, SamplePlan, Stage
from pipelines.sampling.streams import augmentation_draws, second_seed

Memory = NDArray[np.uint8]

_MARK = 8
"""Bytes after each block that say whether its memory is in use."""


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """Everything that determines one rank's batches.

    Attributes:
        uris: the datasets' version folders, sorted by dataset name.
        split: which split of them.
        stages: of the run: how many steps it has and how datasets are mixed in each.
        seed: of order and augmentation.
        batch_size: samples of the global batch, over all ranks.
        crops: makes a training sample of a row.
        start: the first step to produce.
        rank: of this process, from 0.
        world_size: number of ranks; their slices of a global batch differ by at most one sample.
        perturb: of the samples of some datasets; None for none.
        block_samples: approximate number of samples in a block. With more of them fewer row groups are read
            twice, for two blocks; with fewer the first block comes sooner.
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
    perturb: Perturbation | None = None
    block_samples: int = 128

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return sum(stage.steps for stage in self.stages)

    @property
    def slice(self) -> tuple[int, int]:
        """The rank's first and last (exclusive) sample of a global batch: 8 on 3 ranks → 0–2, 2–5, 5–8."""
        first, last = (self.batch_size * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return first, last

    @property
    def steps_per_block(self) -> int:
        """Steps in one block."""
        return max(1, self.block_samples * self.world_size // self.batch_size)


@dataclass(slots=True)
class Block:
    """A rank's share of consecutive steps: n samples.

    Attributes:
        memory: uint8: the targets of all samples, then all their images, then the mark that it is in use.
        scale: (n,) float64, see `pipelines.loading.batches.Batch`.
        dataset: (n,) int64, index of each sample's dataset.
        box: (n, 4) int64, see `pipelines.loading.batches.Batch`.
        sample_ids: n names.
    """

    memory: Memory
    scale: NDArray[np.float64]
    dataset: NDArray[np.int64]
    box: NDArray[np.int64]
    sample_ids: list[str]


def block_bytes(samples: int, crops: Crops) -> tuple[int, int]:
    """Where the targets of `samples` samples of `crops` end in a block's memory, and where the images do."""
    pixels = samples * math.prod(crops.size)
    return pixels * crops.target_dtype.itemsize, pixels * (crops.target_dtype.itemsize + 3)


class BlockMaker:
    """Makes blocks in pieces of `memory`, which whoever receives a block releases.

    Holds open files and caches, which do not depend on rank and start: `settings` may be those of any rank.
    """

    def __init__(self, settings: LoaderSettings, memory: BlockMemory) -> None:
        self._memory = memory
        columns = settings.crops.columns
        self._reader = ShardReader(open_datasets(list(settings.uris)), settings.split, columns)
        self._plan = SamplePlan(self._reader.row_groups, settings.stages, settings.batch_size, settings.seed)

    def block(self, s: LoaderSettings, first: int) -> Block:
        """The block of rank `s.rank` that begins at step `first`."""
        steps = np.arange(first, min(first + s.steps_per_block, s.steps))
        # Step t has the run's samples t · batch_size …; the rank has its slice of each step's.
        positions = (steps[:, None] * s.batch_size + np.arange(*s.slice)).ravel()
        draws = self._plan.draws(positions)
        random = augmentation_draws(s.seed, positions, s.crops.draws)
        split, end = block_bytes(len(positions), s.crops)
        memory = self._memory.take(end)
        targets = memory[:split].view(s.crops.target_dtype).reshape(-1, *s.crops.size)
        images = memory[split:end].reshape(-1, *s.crops.size, 3)
        scale, sample_ids = np.full(len(positions), np.nan), [""] * len(positions)
        box = np.zeros((len(positions), 4), np.int64)
        if s.perturb:
            strong = augmentation_draws(second_seed(s.seed), positions, s.perturb.draws(s.crops))
        # A row group's rows one after the other, while the processor's cache has them.
        for i in np.lexsort((draws.row_group, draws.dataset)):
            row = self._reader.row(draws.dataset[i], draws.row_group[i], draws.row[i])
            s.crops(row, random[i], images[i], targets[i])
            if s.perturb and draws.dataset[i] in s.perturb.datasets:
                partner = partial(self._neighbour, draws, i)
                box[i] = s.perturb(images[i], targets[i], strong[i], s.crops, partner)
            sample_ids[i] = row["sample_id"]
            if row["scale"] is not None:
                scale[i] = row["scale"]
        return Block(memory, scale, draws.dataset, box, sample_ids)

    def _neighbour(self, draws: Draws, i: int, draw: float) -> Row:
        """Another row of the row group of sample `i`, uniform for `draw`; the same if it is the only one."""
        dataset, group, row = draws.dataset[i], draws.row_group[i], draws.row[i]
        rows = self._reader.row_groups[dataset][group]
        return self._reader.row(dataset, group, (row + 1 + int(draw * (rows - 1))) % rows)


class BlockMemory:
    """Pieces of memory for blocks, reused after their release; `make` allocates N bytes, (N,) uint8."""

    def __init__(self, make: Callable[[int], Memory]) -> None:
        self._make = make
        self._pieces: list[Memory] = []

    def take(self, size: int) -> Memory:
        """A piece of at least `size` bytes and their mark, in use until its release."""
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
    """`size` bytes of this process, uninitialised."""
    return np.empty(size, np.uint8)


def release(piece: Memory) -> None:
    """Allow `piece` to be taken again."""
    piece[-1] = 0


def released_with(piece: Memory, size: int) -> Memory:
    """The first `size` bytes of `piece`, which is released when this very array is garbage-collected.

    Tensors hold it; NumPy views do not, as they hold the whole piece instead.
    """
    content = piece[:size]
    weakref.finalize(content, release, piece).atexit = False
    return content
