"""Metric models on prepared datasets, by the protocol of Tables 2 and 3: regions, caps, metrics.

The protocol is that of Eigen et al. (2014) as the authors of BTS (Lee et al. 2019) evaluate it, whose figures
the paper prints beside its own. Predictions are clamped to the valid range; ground truth outside of it, or
outside of the dataset's region, is ignored. A dataset's figure is the mean over its images.

The paper heads three columns of both tables "δ > 1.25", but what it prints is the share of pixels with
max(p/t, t/p) below 1.25ᵏ, of which larger is better; they are `delta1` to `delta3` here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import dpt
from datasets_prep.errors import UserError
from datasets_prep.manifest import NotADataset, PreparedDataset
from dpt.metrics import MetricSums, metric_depth_metrics
from dpt.predict.depth import evaluation_mode, predict_batch
from dpt.regions import kb_window, region_window
from pipelines.config import ConfigError
from pipelines.evaluation.relative_depth import depth_sheet
from pipelines.evaluation.sets import MetricProtocol
from pipelines.evaluation.share import MODEL_SIZE, InputSize, evaluate_shares
from pipelines.loading.batches import Batch, evaluation_batches
from pipelines.loading.metric_crops import metres
from pipelines.loading.rows import decode_native_row, decode_row

_BATCH_SIZE = 8
_LEAST_INVERSE_DEPTH = 1e-8
LEAST_METRES = 1e-3

METRICS = {
    "delta1": "δ₁",
    "delta2": "δ₂",
    "delta3": "δ₃",
    "abs_rel": "AbsRel",
    "sq_rel": "SqRel",
    "rmse": "RMSE",
    "rmse_log": "RMSE log",
    "log10": "log10",
    "silog": "SILog",
}
"""Reported metric, key of `dpt.metrics.metric_depth_metrics` → display name."""


class ProtocolError(UserError):
    """Predictions or images that do not fit the protocol; the message names the image or the reason."""


def evaluate_metric(
    model: dpt.DPT,
    datasets: Sequence[PreparedDataset],
    split: str,
    protocols: Mapping[str, MetricProtocol],
    workers: int = 1,
    device: str = "auto",
    size: InputSize = MODEL_SIZE,
    exact: bool = False,
) -> dict[str, dict[str, float]]:
    """Evaluate a metric `model`, of depth in metres or its inverse, on Ray, each image once.

    The `datasets` have metric depth in the `split`, and `protocols` by name; `size` is that of the network's
    input. `workers`, `device` and `exact` are as in `pipelines.cluster.workers.on_workers`.

    Returns:
        dataset → metric → mean over its images.

    Raises:
        ConfigError: if the model is not a metric depth model.
        NotADataset: if a dataset has no such split, or no metric depth.
        ProtocolError: if predictions or images do not fit the protocol.
    """
    if model.config.task != "depth" or not model.config.metric:
        kind = "relative depth" if model.config.task == "depth" else model.config.task
        raise ConfigError(f"model: this is a {kind} model, a metric depth model is needed")
    require_metric_data(datasets)
    shares = {
        d.name: partial(metric_share, split=split, protocol=protocols[d.name], size=size) for d in datasets
    }
    sums = evaluate_shares(shares, model, datasets, split, workers, device, exact=exact)
    return {name: total.result() for name, total in sums.items()}


def require_metric_data(datasets: Sequence[PreparedDataset]) -> None:
    """Raises NotADataset, naming the first of `datasets` whose depth is not in metres."""
    for dataset in datasets:
        kind = dataset.manifest.target_kind
        if kind != "metric":
            raise NotADataset(
                f"{dataset.name} has no metric scale (its ground truth is {kind}): depth in metres is needed"
            )


def metric_share(
    model: dpt.DPT,
    dataset: PreparedDataset,
    rank: int,
    world_size: int,
    split: str,
    protocol: MetricProtocol,
    size: InputSize = MODEL_SIZE,
) -> MetricSums:
    """See `pipelines.evaluation.share.Share`: sums of `protocol_metrics` over a worker's images of a split.

    Depth is predicted with a network's input `size`, and compared by `protocol`.
    """
    sums = MetricSums()
    for batch in evaluation_batches(dataset, split, 0, rank, world_size, _BATCH_SIZE, decode_metric_row):
        prediction = torch.from_numpy(predict_metres(model, list(batch.images.numpy()), protocol, size))
        sums.update(protocol_metrics(prediction, batch.target, protocol, batch.sample_ids))
    return sums


def protocol_metrics(
    prediction: Tensor, depth: Tensor, protocol: MetricProtocol, names: Sequence[str]
) -> dict[str, Tensor]:
    """Metrics of images of one size by a `protocol`, (B,) each, as `metric_depth_metrics`.

    `prediction` and `depth` are (B, H, W) in metres; depth is NaN where there is no ground truth, and
    predictions outside of the KB crop, where the protocol has it, are ignored. `names` are for messages.

    Raises:
        ProtocolError: naming the image, if a compared prediction is NaN; if images of this size have no such
            region.
    """
    height, width = depth.shape[1:]
    try:
        windows = [region_window(protocol.region, height, width)]
    except ValueError as error:
        raise ProtocolError(str(error)) from error
    windows += [kb_window(height, width)] if protocol.kb_crop else []
    counted = (depth > LEAST_METRES) & (depth < protocol.cap)
    for rows, columns in windows:
        inside = torch.zeros_like(counted)
        inside[:, rows, columns] = True
        counted &= inside
    bad = (prediction.isnan() & counted).flatten(1).any(dim=1)
    if bad.any():
        raise ProtocolError(f"the model predicts NaN in image {names[int(bad.int().argmax())]}")
    return metric_depth_metrics(prediction.clamp(LEAST_METRES, protocol.cap), depth, counted)


def decode_metric_row(row: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
    """A `row` of a shard → image (H, W, 3), and depth (H, W) float32 in metres, NaN where invalid or sky.

    Raises:
        ValueError: naming the sample, if its bytes are damaged or its depth is not metric.
    """
    if row["scale"] is None:
        raise ValueError(f"sample {row['sample_id']}: its depth has no metric scale")
    if row["depth"] is None:
        image, inverse_depth = decode_row(row)
        return image, metres(inverse_depth, row["scale"])
    return decode_native_row(row)


def predict_metres(
    model: dpt.DPT,
    images: Sequence[NDArray[np.uint8]],
    protocol: MetricProtocol,
    size: InputSize = MODEL_SIZE,
) -> NDArray[np.float32]:
    """Depth in metres, (B, H, W) float32, of B `images` (H, W, 3) of one size by a metric `model`.

    `size` is that of the network's input. With `kb_crop` in the `protocol`, the network sees that crop only,
    and depth is 0 outside of it.
    """
    height, width = images[0].shape[:2]
    window = kb_window(height, width) if protocol.kb_crop else (slice(0, height), slice(0, width))
    inputs = [np.ascontiguousarray(image[window]) for image in images]
    with evaluation_mode(model):
        seen = np.stack(predict_batch(model, inputs, *size))
    depth = np.zeros((len(images), height, width), np.float32)
    inverse = not model.config.predicts_depth
    depth[:, window[0], window[1]] = 1 / np.maximum(seen, _LEAST_INVERSE_DEPTH) if inverse else seen
    return depth


def metric_pictures(
    model: dpt.DPT, datasets: Sequence[PreparedDataset], split: str, protocol: MetricProtocol, count: int
) -> NDArray[np.uint8]:
    """See `pipelines.evaluation.relative_depth.depth_sheet`: `model` is metric, `protocol` its input crop."""

    def maps(batch: Batch) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        depth = predict_metres(model, list(batch.images.numpy()), protocol)[0]
        inverse = np.divide(1, depth, out=np.full_like(depth, np.nan), where=depth > 0)
        return 1 / batch.target[0].numpy(), inverse

    return depth_sheet(datasets, split, count, maps, decode_metric_row)
