"""AbsRel and δ of relative depth on prepared datasets, after alignment.

Protocol (paper section 4.3, after MiDaS): the prediction, resized to the ground truth, is aligned to it by
least squares in inverse depth, image by image; both are inverted and compared as depth where the ground truth
is valid and nearer than a cap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import dpt
from datasets_prep.inspect.contact_sheet import contact_sheet
from datasets_prep.manifest import PreparedDataset
from dpt.metrics import depth_metrics
from dpt.predict.colours import colourise
from dpt.predict.depth import evaluation_mode, predict_batch, to_inverse_depth
from pipelines.config import CapsSection
from pipelines.evaluation.mean_map import SkillSums, has_mean_map, predict_mean_map
from pipelines.evaluation.share import MODEL_SIZE, InputSize
from pipelines.loading.batches import Batch, Decode, evaluation_batches
from pipelines.loading.rows import decode_evaluation_row
from pipelines.tracking.metric_keys import MEAN_MAP

_BATCH_SIZE = 8


def relative_share(
    model: dpt.DPT | None,
    dataset: PreparedDataset,
    rank: int,
    world_size: int,
    split: str,
    caps: CapsSection,
    size: InputSize = MODEL_SIZE,
) -> SkillSums:
    """See `pipelines.evaluation.share.Share`: sums of `depth_metrics` over a worker's images of a split.

    Inverse depth is predicted with a network's input `size`, without a `model` by the dataset's mean map;
    ground truth beyond the `caps` is ignored. Of a model's images the AbsRel of the mean map is taken too, if
    the dataset has one.

    Raises:
        NotADataset: if the dataset has no depth maps, or no such split; without model, no training split.
    """
    sums, compared = SkillSums(), model is not None and has_mean_map(dataset)
    for batch in evaluation_batches(dataset, split, 0, rank, world_size, _BATCH_SIZE):
        baseline = partial(predict_mean_map, dataset, *batch.target.shape)
        prediction = baseline() if model is None else torch.from_numpy(_predict(model, batch, *size))
        metrics = _measured(prediction, batch, caps)
        if compared:
            metrics[MEAN_MAP] = _measured(baseline(), batch, caps)["abs_rel"]
        sums.update(metrics)
    return sums


def _measured(prediction: Tensor, batch: Batch, caps: CapsSection) -> dict[str, Tensor]:
    target = batch.target.float()
    return depth_metrics(prediction, target.nan_to_num(0.0), ~target.isnan(), normalised_caps(batch, caps))


def sample_predictions(
    model: dpt.DPT, datasets: Sequence[PreparedDataset], split: str, count: int
) -> NDArray[np.uint8]:
    """See `depth_sheet`: of a `model` of relative depth."""

    def maps(batch: Batch) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        return batch.target[0].float().numpy(), _predict(model, batch)[0]

    return depth_sheet(datasets, split, count, maps, decode_evaluation_row)


def depth_sheet(
    datasets: Sequence[PreparedDataset],
    split: str,
    count: int,
    maps: Callable[[Batch], tuple[NDArray[np.floating], NDArray[np.floating]]],
    decode: Decode,
) -> NDArray[np.uint8]:
    """A contact sheet, (H', W', 3) uint8 RGB, of the first image of each dataset: image, truth, prediction.

    Of at most `count` of the `datasets`, from the `split`. `maps` takes a batch of one image and returns the
    inverse depth (H, W) of its ground truth and of its prediction; `decode` is as in `evaluation_batches`.
    """
    rows, titles = [], []
    for dataset in datasets[:count]:
        batch = next(evaluation_batches(dataset, split, 0, 0, 1, 1, decode))
        rows.append([batch.images[0].numpy(), *map(colourise, maps(batch))])
        titles.append(f"{dataset.name}: {batch.sample_ids[0]}  (image, ground truth, prediction)")
    return contact_sheet(rows, titles)


def _predict(
    model: dpt.DPT, batch: Batch, side: int | None = None, rule: str | None = None
) -> NDArray[np.float32]:
    """Inverse depth of a batch, also by models that predict depth: (B, H, W) float32 at the images' size."""
    with evaluation_mode(model):
        prediction = np.stack(predict_batch(model, list(batch.images.numpy()), side, rule))
    return to_inverse_depth(torch.from_numpy(prediction), model.config).numpy()


def normalised_caps(batch: Batch, caps: CapsSection) -> Tensor:
    """`caps` for a `batch` in the unit of stored depth, whose nearest valid point is at 1: (B,) float64.

    Stored inverse depth is divided by its maximum m (1/metres; `scale` is m, NaN without metric scale), so a
    depth of d metres is stored as d · m: 80 m in an image whose nearest point is at 2 m is 80 · 0.5 = 40.
    """
    metric = caps.metres * batch.scale
    return torch.where(batch.scale.isnan(), torch.full_like(metric, caps.nearest), metric)
