"""A rank's batches: shards → decoded, cropped, mirrored samples, in the order of the sample plan.

Every rank computes its own slice of every global batch from the plan, so nothing is handed out and nothing
depends on timing. Who decodes is one setting, and does not change the batches:

* `local`: DataLoader worker processes beside the rank (`pipelines.loading.local`).
* `ray`: Ray Data actors on any CPUs of the cluster (`pipelines.loading.on_ray`), for nodes whose GPUs consume
  more than their cores can decode.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from datasets_prep.manifest import NotADataset, PreparedDataset
from pipelines.config import Executor
from pipelines.loading.blocks import Block, LoaderSettings, block_bytes
from pipelines.loading.crops import Crops
from pipelines.loading.local import local_blocks
from pipelines.loading.on_ray import ray_blocks
from pipelines.loading.rows import Image, Row, decode_evaluation_row, size_of
from pipelines.loading.same_size import SameSizeBatches
from pipelines.loading.shard_reader import EVALUATION_COLUMNS, ShardReader

__all__ = ["Batch", "LoaderSettings", "evaluation_batches", "training_batches"]

Decode = Callable[[Row], tuple[Image, NDArray[np.floating]]]
"""A row → its image (H, W, 3) and target (H, W)."""

EVALUATION_PIXELS = 8 * 2**20
"""Pixels of an evaluation batch at most (but at least one image): native images have up to 24 million."""


@dataclass(slots=True)
class Batch:
    """Samples of equal size; not to be written to: some lie in read-only memory.

    Attributes:
        images: (B, H, W, 3) uint8 RGB.
        target: (B, H, W), the task's target. For relative depth: inverse depth in [0, 1], NaN where invalid,
            float16; float32 if the ground truth is kept at its native resolution, for evaluation.
        scale: (B,) float64, inverse depth times `scale` is in 1/m; NaN if the dataset is not metric.
        dataset: (B,) int64, index into the run's datasets, sorted by name.
        box: (B, 4) int64, top, left, bottom and right of the rectangle that is from another sample, see
            `pipelines.loading.perturbation`; zeros without one. On the CPU, as scale and dataset.
        sample_ids: B names.
    """

    images: torch.Tensor
    target: torch.Tensor
    scale: torch.Tensor
    dataset: torch.Tensor
    box: torch.Tensor
    sample_ids: list[str]

    def at(self, chosen: torch.Tensor) -> Batch:
        """The samples with the indices `chosen`, (n,) int64 on the CPU."""
        there = chosen.to(self.images.device, non_blocking=True)
        names = [self.sample_ids[index] for index in chosen.tolist()]
        scale, dataset, box = (values[chosen] for values in (self.scale, self.dataset, self.box))
        return Batch(self.images[there], self.target[there], scale, dataset, box, names)

    def blank(self) -> Batch:
        """One sample of zeros, of the same size and kind."""
        sides = (self.images, self.target, self.scale, self.dataset, self.box)
        images, target, scale, dataset, box = (side.new_zeros(1, *side.shape[1:]) for side in sides)
        return Batch(images, target, scale, dataset, box, [""])


def training_batches(
    settings: LoaderSettings, processes: int, executor: Executor = "local"
) -> Iterator[Batch]:
    """A rank's slice of the global batches `start` to `steps`, in order.

    Batches are views of the memory they were decoded into, which is reused when they are gone; they must not
    be written to.

    Args:
        settings: of the rank.
        processes: loading processes beside the rank, 0 loads in this one; for `ray`, actors, at least 1.
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


def batches_of(block: Block, size: int, crops: Crops) -> Iterator[Batch]:
    """The batches of `size` samples of a `block` of `crops`: views of its memory."""
    count = len(block.sample_ids)
    split, end = block_bytes(count, crops)
    with warnings.catch_warnings():
        # The object store's memory is read-only, and nobody writes to it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        # One tensor, which holds the memory; see `pipelines.loading.blocks.released_with`.
        pixels = torch.from_numpy(block.memory)
    dtype = torch.from_numpy(np.empty(0, crops.target_dtype)).dtype
    targets = pixels[:split].view(dtype).view(count, *crops.size)
    images = pixels[split:end].view(count, *crops.size, 3)
    for start in range(0, count, size):
        part = slice(start, start + size)
        of_samples = (block.scale, block.dataset, block.box)
        scale, dataset, box = (torch.from_numpy(values[part]) for values in of_samples)
        yield Batch(images[part], targets[part], scale, dataset, box, block.sample_ids[part])


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

    Of the `split` of a `dataset` with depth maps, each of `world_size` ranks has every `world_size`-th row
    group; this is the share of `rank`, from 0. A batch has at most `batch_size` samples, fewer if they are
    large (`EVALUATION_PIXELS`). `index` is the value of `Batch.dataset`; `decode` gives a row's image and
    target.

    Raises:
        NotADataset: if the dataset has no depth maps, or no such split.
    """
    kind = dataset.manifest.target_kind
    if kind in ("ordinal", "labels"):
        raise NotADataset(f"{dataset.name} has {kind} as ground truth, depth maps are needed here")
    reader = ShardReader([dataset], split, EVALUATION_COLUMNS)
    groups = range(rank, len(reader.row_groups[0]), world_size)
    rows = chain.from_iterable(reader.rows(0, group) for group in groups)
    for same in SameSizeBatches[Row](batch_size, EVALUATION_PIXELS).of(rows, size_of):
        images, targets = (torch.from_numpy(np.stack(part)) for part in zip(*map(decode, same), strict=True))
        scales = [np.nan if row["scale"] is None else row["scale"] for row in same]
        scale, dataset_index = torch.tensor(scales, dtype=torch.float64), torch.full((len(same),), index)
        box = torch.zeros(len(same), 4, dtype=torch.int64)
        yield Batch(images, targets, scale, dataset_index, box, [row["sample_id"] for row in same])
    reader.close()
