"""From relative to metric inverse depth: one scale and shift for all images of a training set.

Paper section 4.1, "Fine-tuning on small datasets": predictions of a model of relative depth are aligned to
each training image by the robust alignment of MiDaS (median and mean absolute deviation, in inverse depth);
the averages of these scales and shifts are applied to predictions before the loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

import dpt
from datasets_prep.errors import UserError
from datasets_prep.manifest import PreparedDataset, open_datasets
from dpt.alignment import robust_scale_shift
from dpt.predict.depth import predict_batch
from pipelines.cluster.workers import on_workers
from pipelines.config import TrainConfig
from pipelines.loading.metric_crops import training_window
from pipelines.loading.rows import Row, decode_row, size_of
from pipelines.loading.same_size import SameSizeBatches
from pipelines.loading.shard_reader import TRAINING_COLUMNS, ShardReader


class NoAlignment(UserError):
    """Predictions of a model cannot be aligned to a training set; the message says why."""


@dataclass(frozen=True, slots=True)
class AverageAlignment:
    """Metric inverse depth in 1/metres is `scale` · prediction + `shift`, averages over `images` images.

    The scale is positive. `flat` images are left out: their prediction or ground truth is constant or empty.
    """

    scale: float
    shift: float
    images: int
    flat: int


def average_alignment(
    model: dpt.DPT, datasets: Sequence[PreparedDataset], config: TrainConfig
) -> AverageAlignment:
    """The average robust alignment over the training split, each image once.

    The number of workers changes nothing but rounding in processes with other numbers of threads: an image is
    batched with others of its row group, and sums are exact (`math.fsum`).

    The `model` is of relative inverse depth and has its final inference size, the `datasets` are metric, and
    `config` is that of the run.

    Raises:
        NoAlignment: if no image can be aligned, because the model predicts constants.
    """
    job = partial(_alignments, [d.folder.uri for d in datasets], config)
    parts = on_workers(job, model, config.most_workers, config.device, exact=True)
    found = [alignment for part in parts for alignment in part]
    expected = sum(d.manifest.samples[config.train_split] for d in datasets)
    if len(found) != expected:
        raise RuntimeError(f"aligned {len(found)} images of {expected}")
    used = [(scale, shift) for scale, shift in found if scale > 0]
    if not used:
        raise NoAlignment("the model predicts a constant: there is nothing to align to the data")
    scale, shift = (math.fsum(values) / len(used) for values in zip(*used, strict=True))
    return AverageAlignment(scale, shift, len(used), len(found) - len(used))


def _alignments(
    uris: list[str], config: TrainConfig, model: dpt.DPT, rank: int, workers: int
) -> list[tuple[float, float]]:
    """Scale and shift of each image of every `workers`-th row group."""
    datasets = open_datasets(uris)
    reader = ShardReader(datasets, config.train_split, TRAINING_COLUMNS)
    found = []
    for index in range(len(datasets)):
        for group in range(rank, len(reader.row_groups[index]), workers):
            rows = reader.rows(index, group)
            for same in SameSizeBatches[Row](len(rows)).of(rows, size_of):
                found += _align(model, same, config)
    reader.close()
    return found


def _align(model: dpt.DPT, rows: Sequence[dict[str, Any]], config: TrainConfig) -> list[tuple[float, float]]:
    """Scale and shift of the images of `rows`, all of one size."""
    images, targets = [], []
    for row in rows:
        image, inverse_depth = decode_row(row)
        window = training_window(config.metric_depth, *inverse_depth.shape)
        images.append(np.ascontiguousarray(image[window]))
        targets.append(inverse_depth[window].astype(np.float64) * row["scale"])
    prediction = torch.from_numpy(np.stack(predict_batch(model, images)))
    target = torch.from_numpy(np.stack(targets))
    scale, shift = robust_scale_shift(prediction, target, ~target.isnan())
    return list(zip(scale.tolist(), shift.tolist(), strict=True))
