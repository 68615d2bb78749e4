"""The sample plan executed: a rank's share of some consecutive steps, decoded into one piece of memory.

A block is what crosses from a loading process to the training process, so all its pixels lie in one buffer:
one file descriptor, or one object of Ray's store, a block. Its samples of one dataset lie in few row groups,
which are read once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from datasets_prep.manifest import open_datasets
from pipelines.crops import Crops
from pipelines.random_streams import augmentation_draws
from pipelines.sampling import SamplePlan, Stage
from pipelines.shard_reader import ShardReader


@dataclass(slots=True)
class Batch:
    """Samples of equal size.

    Attributes:
        images: (B, H, W, 3) uint8 RGB.
        target: (B, H, W), what the task makes of the ground truth. For relative depth: inverse depth in
            [0, 1], NaN where invalid, float16; float32 where the ground truth is kept at its native
            resolution, for evaluation.
        scale: (B,) float64, inverse depth times `scale` is in 1/metres; NaN where the dataset is not metric.
        dataset: (B,) int64, index into the run's datasets, sorted by name.
        sample_ids: B names.
    """

    images: torch.Tensor
    target: torch.Tensor
    scale: torch.Tensor
    dataset: torch.Tensor
    sample_ids: list[str]


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
        pixels: (bytes,) uint8: the targets of all samples, then all their images. Who made the block says how
            long they stay.
        scale: (n,) float64.
        dataset: (n,) int64.
        sample_ids: n names.
    """

    pixels: torch.Tensor
    scale: NDArray[np.float64]
    dataset: NDArray[np.int64]
    sample_ids: list[str]

    def batches(self, size: int, crops: Crops) -> Iterator[Batch]:
        """The block's batches of `size` samples, copied: its own memory is soon written to again."""
        targets, images = views(self.pixels, len(self.sample_ids), crops)
        for start in range(0, len(self.sample_ids), size):
            part = slice(start, start + size)
            yield Batch(
                _copied(images[part]),
                _copied(targets[part]),
                torch.from_numpy(self.scale[part]),
                torch.from_numpy(self.dataset[part]),
                self.sample_ids[part],
            )


def views(pixels: torch.Tensor, samples: int, crops: Crops) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets (n, h, w) and images (n, h, w, 3) uint8 in a block's memory."""
    height, width = crops.size
    end = samples * height * width * crops.target_dtype.itemsize
    targets = pixels[:end].view(crops.target_dtype).view(samples, height, width)
    return targets, pixels[end:].view(samples, height, width, 3)


def block_bytes(samples: int, crops: Crops) -> int:
    """Bytes of the memory of a block of so many samples."""
    height, width = crops.size
    return samples * height * width * (crops.target_dtype.itemsize + 3)


def _copied(pixels: torch.Tensor) -> torch.Tensor:
    """A copy in memory that a GPU can fetch from by itself, if there is one."""
    return torch.empty_like(pixels, pin_memory=torch.cuda.is_available()).copy_(pixels)


class MemoryRing:
    """Memory for blocks, used again and again: fresh pages cost as much time as half of the decoding.

    Args:
        length: after so many blocks the memory of the first is used again.
        make: makes memory: so many bytes, uint8.
    """

    def __init__(self, length: int, make: Callable[[int], torch.Tensor]) -> None:
        self._ring: list[torch.Tensor | None] = [None] * length
        self._make = make
        self._next = 0

    def __call__(self, size: int) -> torch.Tensor:
        """Memory of so many bytes."""
        place = self._next % len(self._ring)
        self._next += 1
        memory = self._ring[place]
        if memory is None or len(memory) < size:
            memory = self._ring[place] = self._make(size)
        return memory[:size]


class BlockMaker:
    """Makes blocks; holds open files and caches, which do not depend on rank and start.

    Args:
        allocate: gives the memory of a block: so many bytes, uint8.
    """

    def __init__(self, settings: LoaderSettings, allocate: Callable[[int], torch.Tensor]) -> None:
        self._allocate = allocate
        columns = settings.crops.columns
        self._reader = ShardReader(open_datasets(list(settings.uris)), settings.split, columns)
        self._plan = SamplePlan(self._reader.row_groups, settings.stages, settings.batch_size, settings.seed)

    def block(self, s: LoaderSettings, first: int) -> Block:
        """The block of rank `s.rank` that begins at step `first`."""
        steps = np.arange(first, min(first + s.steps_per_block, s.steps))
        positions = (steps[:, None] * s.batch_size + np.arange(*s.slice)).ravel()
        draws = self._plan.draws(positions)
        random = augmentation_draws(s.seed, positions, s.crops.draws)
        pixels = self._allocate(block_bytes(len(positions), s.crops))
        targets, images = (view.numpy() for view in views(pixels, len(positions), s.crops))
        scale, sample_ids = np.full(len(positions), np.nan), []
        for i, place in enumerate(zip(draws.dataset, draws.row_group, draws.row, strict=True)):
            row = self._reader.row(*place)
            s.crops(row, random[i], images[i], targets[i])
            sample_ids.append(row["sample_id"])
            if row["scale"] is not None:
                scale[i] = row["scale"]
        return Block(pixels, scale, draws.dataset, sample_ids)
