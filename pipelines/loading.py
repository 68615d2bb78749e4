"""The sample plan executed: shards → decoded, cropped, flipped batches.

Every rank computes its own slice of every global batch from the plan, so nobody hands out work and nothing
depends on timing. Worker processes beside a rank each take a whole block of consecutive steps: a block's
samples of one dataset lie in few row groups, which are read once for all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datasets_prep.manifest import PreparedDataset, open_datasets
from datasets_prep.schema import decode_image, decode_inverse_depth
from pipelines.sampling import SamplePlan, augmentation_draws

BLOCK_SAMPLES = 64
"""Samples that a loading process handles at a time: more share more reads, fewer start sooner."""

_COLUMNS = ["sample_id", "image", "inverse_depth", "height", "width", "scale"]


@dataclass(slots=True)
class Batch:
    """Samples of equal size.

    Attributes:
        images: (B, H, W, 3) uint8 RGB.
        inverse_depth: (B, H, W) float16 in [0, 1], NaN where invalid.
        scale: (B,) float64, `inverse_depth · scale` is in 1/metres; NaN where the dataset is not metric.
        dataset: (B,) int64, index into the run's datasets, sorted by name.
        sample_ids: B names.
    """

    images: torch.Tensor
    inverse_depth: torch.Tensor
    scale: torch.Tensor
    dataset: torch.Tensor
    sample_ids: list[str]


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """What one rank's stream of batches is a function of.

    Attributes:
        uris: the datasets' version folders, sorted by dataset name.
        split: which split of them.
        weights: share of each dataset, or None for all alike.
        batch_size: of the global batch, over all ranks.
        steps: number of steps of the whole run.
        start: the first step to produce.
        rank, world_size: which slice of each global batch.
    """

    uris: Sequence[str]
    split: str
    weights: Sequence[float] | None
    seed: int
    batch_size: int
    crop: int
    flip: bool
    steps: int
    start: int
    rank: int
    world_size: int


class ShardReader:
    """Rows of one split of several prepared datasets, by row group, with open handles.

    Args:
        datasets: as `open_datasets` gives them.
        split: which split.
        cached_groups: row groups kept in memory (2 to 3 MB each).
    """

    def __init__(self, datasets: Sequence[PreparedDataset], split: str, cached_groups: int = 64) -> None:
        self._shards = [(d.folder, d.manifest.split(split)) for d in datasets]
        self.row_groups = [
            [rows for shard in shards for rows in shard.row_groups] for _, shards in self._shards
        ]
        self._starts = [
            np.cumsum([0] + [len(shard.row_groups) for shard in shards]) for _, shards in self._shards
        ]
        self._open: dict[tuple[int, int], pq.ParquetFile] = {}
        self._cache: OrderedDict[tuple[int, int], list[dict[str, Any]]] = OrderedDict()
        self._cached_groups = cached_groups
        self._files = ExitStack()

    def close(self) -> None:
        """Close all files."""
        self._files.close()

    def read_group(self, dataset: int, group: int) -> list[dict[str, Any]]:
        """All rows of a dataset's row group, images and inverse depth still encoded."""
        key = (dataset, group)
        if key not in self._cache:
            self._cache[key] = self._read(dataset, group)
            if len(self._cache) > self._cached_groups:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _read(self, dataset: int, group: int) -> list[dict[str, Any]]:
        shard = int(np.searchsorted(self._starts[dataset], group, side="right")) - 1
        file = self._file(dataset, shard)
        table: pa.Table = file.read_row_group(group - int(self._starts[dataset][shard]), columns=_COLUMNS)
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def _file(self, dataset: int, shard: int) -> pq.ParquetFile:
        if (dataset, shard) not in self._open:
            folder, shards = self._shards[dataset]
            handle = self._files.enter_context(folder.fs.open(folder.path_of(shards[shard].name)))
            self._open[dataset, shard] = pq.ParquetFile(handle, page_checksum_verification=True)
        return self._open[dataset, shard]


def decode_row(row: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """A row's image (H, W, 3) uint8 and inverse depth (H, W) float16.

    Raises:
        ValueError: naming the sample, if its bytes are damaged.
    """
    try:
        image = decode_image(row["image"])
        inverse_depth = decode_inverse_depth(row["inverse_depth"], row["height"], row["width"])
    except ValueError as error:
        raise ValueError(f"sample {row['sample_id']}: {error}") from error
    return image, inverse_depth


def crop_and_flip(
    image: NDArray[np.uint8],
    inverse_depth: NDArray[np.float16],
    side: int,
    draws: NDArray[np.float64],
    flip: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """A random square crop, mirrored half of the time if `flip`; what is too small is padded as invalid.

    Args:
        image: (H, W, 3).
        inverse_depth: (H, W).
        draws: three numbers in [0, 1): vertical position, horizontal position, flip.

    Returns:
        (side, side, 3) uint8 and (side, side) float16.
    """
    height, width = inverse_depth.shape
    top, left = (
        int(draw * (max(0, size - side) + 1)) for draw, size in zip(draws, (height, width), strict=False)
    )
    image = image[top : top + side, left : left + side]
    inverse_depth = inverse_depth[top : top + side, left : left + side]
    if flip and draws[2] < 0.5:
        image, inverse_depth = image[:, ::-1], inverse_depth[:, ::-1]
    missing = [(0, side - size) for size in inverse_depth.shape]
    if any(after for _, after in missing):
        image = np.pad(image, [*missing, (0, 0)])
        inverse_depth = np.pad(inverse_depth, missing, constant_values=np.nan)
    return image, inverse_depth


class PlanBlocks(IterableDataset[list[Batch]]):
    """A rank's batches, a block of consecutive steps at a time, dealt out to loading processes in turn."""

    def __init__(self, settings: LoaderSettings) -> None:
        self._settings = settings

    def __iter__(self) -> Iterator[list[Batch]]:
        s = self._settings
        reader = ShardReader(open_datasets(list(s.uris)), s.split)
        plan = SamplePlan(reader.row_groups, s.seed, s.weights)
        block = steps_per_block(s)
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for start in range(s.start + first * block, s.steps, stride * block):
            yield [self._batch(reader, plan, step) for step in range(start, min(start + block, s.steps))]

    def _batch(self, reader: ShardReader, plan: SamplePlan, step: int) -> Batch:
        s = self._settings
        local = s.batch_size // s.world_size
        start = step * s.batch_size + s.rank * local
        draws = plan.draws(start, start + local)
        random = augmentation_draws(s.seed, start, start + local)
        rows, pixels = [], []
        for i in range(local):
            group = reader.read_group(int(draws.dataset[i]), int(draws.row_group[i]))
            rows.append(group[int(draws.row[i])])
            pixels.append(crop_and_flip(*decode_row(rows[-1]), s.crop, random[i], s.flip))
        return make_batch(pixels, rows, draws.dataset)


def steps_per_block(settings: LoaderSettings) -> int:
    """Steps in one block of a rank."""
    return max(1, BLOCK_SAMPLES // (settings.batch_size // settings.world_size))


def make_batch(
    pixels: Sequence[tuple[NDArray[np.uint8], NDArray[np.float16]]],
    rows: Sequence[dict[str, Any]],
    dataset: NDArray[np.int64],
) -> Batch:
    """Stack samples of equal size."""
    scale = [np.nan if row["scale"] is None else row["scale"] for row in rows]
    return Batch(
        images=torch.from_numpy(np.stack([image for image, _ in pixels])),
        inverse_depth=torch.from_numpy(np.stack([inverse_depth for _, inverse_depth in pixels])),
        scale=torch.tensor(scale, dtype=torch.float64),
        dataset=torch.from_numpy(np.asarray(dataset, np.int64)),
        sample_ids=[row["sample_id"] for row in rows],
    )


def training_batches(settings: LoaderSettings, processes: int) -> Iterator[Batch]:
    """A rank's slice of the global batches `start` to `steps`, in order.

    Args:
        processes: loading processes beside the rank; 0 loads in this one.
    """
    loader = DataLoader(
        PlanBlocks(settings),
        batch_size=None,
        num_workers=processes,
        # A training process has threads (Ray, gloo); forking it could copy a lock that is held.
        multiprocessing_context="spawn" if processes else None,
        prefetch_factor=2 if processes else None,
    )
    for block in loader:
        yield from block


def evaluation_batches(
    dataset: PreparedDataset, split: str, index: int, rank: int, world_size: int, batch_size: int
) -> Iterator[Batch]:
    """A rank's share of all samples of one dataset's split, each once, uncropped, equal sizes together.

    Args:
        index: what `Batch.dataset` shall say.
        batch_size: at most so many samples a batch.
    """
    reader = ShardReader([dataset], split, cached_groups=1)
    waiting: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for group in range(rank, len(reader.row_groups[0]), world_size):
        for row in reader.read_group(0, group):
            same = waiting.setdefault((row["height"], row["width"]), [])
            same.append(row)
            if len(same) == batch_size:
                yield _whole_batch(same, index)
                same.clear()
    for same in waiting.values():
        if same:
            yield _whole_batch(same, index)
    reader.close()


def _whole_batch(rows: list[dict[str, Any]], index: int) -> Batch:
    return make_batch([decode_row(row) for row in rows], rows, np.full(len(rows), index))
