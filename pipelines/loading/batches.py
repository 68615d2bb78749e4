"""A rank's batches: shards → decoded, cropped, mirrored samples, in the order of the sample plan.

Every rank computes its own slice of every global batch from the plan, so nobody hands out work and nothing
depends on timing. Who decodes is one setting, and changes nothing of what comes out:

* `local`: DataLoader worker processes beside the rank (`pipelines.loading.local`).
* `ray`: Ray Data actors on any CPUs of the cluster (`pipelines.loading.on_ray`), for nodes whose GPUs take
  more than their cores can decode.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets_prep.manifest import NotADataset, PreparedDataset
from pipelines.config import Executor
from pipelines.loading.blocks import Block, LoaderSettings, Memory, block_bytes, target_bytes
from pipelines.loading.crops import Crops
from pipelines.loading.local import local_blocks
from pipelines.loading.on_ray import ray_blocks
from pipelines.loading.rows import decode_evaluation_row
from pipelines.loading.shard_reader import EVALUATION_COLUMNS, ShardReader

__all__ = ["Batch", "LoaderSettings", "evaluation_batches", "training_batches"]

Decode = Callable[[dict[str, Any]], tuple[NDArray[np.uint8], NDArray[np.floating]]]
"""A row → its image (H, W, 3) and target (H, W)."""

EVALUATION_PIXELS = 8 * 2**20
"""Pixels of an evaluation batch at most (but one image at least): native images have up to 24 million."""


def training_batches(
    settings: LoaderSettings, processes: int, executor: Executor = "local"
) -> Iterator[Batch]:
    """A rank's slice of the global batches `start` to `steps`, in order.

    Batches are views of the memory they were decoded into. It stays as long as they are kept, and is used
    again afterwards; it must not be written to.

    Args:
        processes: loading processes beside the rank, 0 loads in this one; with `ray`, actors, at least 1.
        executor: who reads and decodes.

    Raises:
        ValueError: naming the sample, if its bytes are damaged.
        OSError: if a shard cannot be read.
    """
    blocks = (
        ray_blocks(settings, max(1, processes)) if executor == "ray" else local_blocks(settings, processes)
    )
    first, last = settings.slice
    # A loop over blocks would hold each while it waits for the next.
    return chain.from_iterable(map(partial(batches_of, size=last - first, crops=settings.crops), blocks))


def evaluation_batches(
    dataset: PreparedDataset,
    split: str,
    index: int,
    rank: int,
    world_size: int,
    batch_size: int,
    decode: Decode = decode_evaluation_row,
) -> Iterator[Batch]:
    """A rank's share of all samples of one dataset's split, each once, uncropped, equal sizes together.

    Args:
        index: what `Batch.dataset` shall say.
        batch_size: at most so many samples a batch, fewer where they are large (`EVALUATION_PIXELS`).
        decode: gives a row's image and target.

    Raises:
        NotADataset: if the dataset has no depth maps, or no such split.
    """
    if dataset.manifest.target_kind in ("ordinal", "labels"):
        raise NotADataset(
            f"{dataset.name} has {dataset.manifest.target_kind} as ground truth, depth maps are needed here"
        )
    reader = ShardReader([dataset], split, EVALUATION_COLUMNS)
    waiting: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for group in range(rank, len(reader.row_groups[0]), world_size):
        for row in reader.rows(0, group):
            same = waiting.setdefault((row["height"], row["width"]), [])
            same.append(row)
            if len(same) == min(batch_size, max(1, EVALUATION_PIXELS // (row["height"] * row["width"]))):
                yield _whole_batch(same, index, decode)
                same.clear()
    for same in waiting.values():
        if same:
            yield _whole_batch(same, index, decode)
    reader.close()


def _whole_batch(rows: Sequence[dict[str, Any]], index: int, decode: Decode) -> Batch:
    images, targets = zip(*(decode(row) for row in rows), strict=True)
    scale = [np.nan if row["scale"] is None else row["scale"] for row in rows]
    return Batch(
        images=torch.from_numpy(np.stack(images)),
        target=torch.from_numpy(np.stack(targets)),
        scale=torch.tensor(scale, dtype=torch.float64),
        dataset=torch.full((len(rows),), index),
        sample_ids=[row["sample_id"] for row in rows],
    )


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
