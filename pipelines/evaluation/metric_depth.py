"""Metric models on prepared datasets by the protocol of Tables 2 and 3 (`metric_protocol`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.manifest import NotADataset, PreparedDataset
from datasets_prep.schema import decode_depth, decode_image
from dpt.metrics import MetricSums
from dpt.predict.depth import predict_batch
from dpt.regions import kb_window
from pipelines.config import ConfigError
from pipelines.evaluation.metric_protocol import MetricProtocol, protocol_metrics
from pipelines.evaluation.relative_depth import depth_sheet
from pipelines.evaluation.share import MODEL_SIZE, InputSize, evaluate_shares
from pipelines.loading.batches import Batch, evaluation_batches
from pipelines.loading.metric_crops import metres
from pipelines.loading.rows import decode_row

_BATCH_SIZE = 8
_LEAST_INVERSE_DEPTH = 1e-8


def evaluate_metric(
    model: dpt.DPT,
    datasets: Sequence[PreparedDataset],
    split: str,
    protocols: Mapping[str, MetricProtocol],
    workers: int = 1,
    device: str = "auto",
    size: InputSize = MODEL_SIZE,
) -> dict[str, dict[str, float]]:
    """Evaluate a metric model on Ray, each image once.

    Args:
        model: predicts depth in metres, or its inverse.
        datasets: with metric depth.
        split: of all datasets.
        protocols: dataset → protocol.
        workers: number of workers.
        device: `auto`, `cpu` or `cuda`.
        size: of the network's input.

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
    sums = evaluate_shares(shares, model, datasets, split, workers, device)
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
    try:
        return decode_image(row["image"]), decode_depth(row["depth"], row["height"], row["width"])
    except ValueError as error:
        raise ValueError(f"sample {row['sample_id']}: {error}") from error


def predict_metres(
    model: dpt.DPT,
    images: Sequence[NDArray[np.uint8]],
    protocol: MetricProtocol,
    size: InputSize = MODEL_SIZE,
) -> NDArray[np.float32]:
    """Predicted depth in metres, (B, H, W) float32.

    Args:
        model: predicts depth in metres, or its inverse.
        images: B images (H, W, 3) of one size.
        protocol: with `kb_crop` the network sees that crop only, and depth is 0 outside of it.
        size: of the network's input.
    """
    height, width = images[0].shape[:2]
    window = kb_window(height, width) if protocol.kb_crop else (slice(0, height), slice(0, width))
    training = model.training
    model.eval()
    seen = np.stack(predict_batch(model, [np.ascontiguousarray(image[window]) for image in images], *size))
    model.train(training)
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
