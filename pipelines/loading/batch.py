"""Batches: tensors over the pixels of blocks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.loading.block_memory import Memory
from pipelines.loading.blocks import Block, block_bytes, target_bytes
from pipelines.loading.crops import Crops


@dataclass(slots=True)
class Batch:
    """Samples of equal size; not to be written to: some lie in read-only memory.

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


def batches_of(block: Block, size: int, crops: Crops) -> Iterator[Batch]:
    """A block's batches of `size` samples: views of its memory, which they keep; for a GPU copies."""
    targets, images = _views(block.memory, len(block.sample_ids), crops)
    for start in range(0, len(block.sample_ids), size):
        part = slice(start, start + size)
        yield Batch(
            _fetchable(images[part]),
            _fetchable(targets[part]),
            torch.from_numpy(block.scale[part]),
            torch.from_numpy(block.dataset[part]),
            block.sample_ids[part],
        )


def _views(memory: Memory, samples: int, crops: Crops) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets and images as tensors of one storage, which holds `memory` itself."""
    with warnings.catch_warnings():
        # The object store's memory is read-only, and nobody writes to it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        pixels = torch.from_numpy(memory)
    split, end = target_bytes(samples, crops), block_bytes(samples, crops)
    dtype = torch.from_numpy(np.empty(0, crops.target_dtype)).dtype
    targets = pixels[:split].view(dtype).view(samples, *crops.size)
    return targets, pixels[split:end].view(samples, *crops.size, 3)


def _fetchable(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels in memory that a GPU can fetch from by itself, if there is one."""
    return pixels.pin_memory() if torch.cuda.is_available() else pixels
