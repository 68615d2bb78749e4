"""Metric models on prepared datasets by the protocol of Tables 2 and 3 (`metric_protocol`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.inspect.contact_sheet import contact_sheet
from datasets_prep.manifest import NotADataset, PreparedDataset, open_datasets
from dpt.metrics import MetricSums, merged
from dpt.predict.colours import colourise
from dpt.predict.depth import evaluation_mode, predict_batch
from dpt.regions import kb_window
from pipelines.cluster.workers import on_workers
from pipelines.config import ConfigError
from pipelines.evaluation.metric_protocol import MetricProtocol, protocol_metrics
from pipelines.loading.batches import evaluation_batches
from pipelines.loading.metric_crops import metres
from pipelines.loading.rows import decode_native_row, decode_row

_BATCH_SIZE = 8
_LEAST_INVERSE_DEPTH = 1e-8

Size = tuple[int | None, str | None]
"""Side and rule of the network's input (`transforms.network_size`); None for the model's own."""


def evaluate_metric(
    model: dpt.DPT,
    datasets: Sequence[PreparedDataset],
    split: str,
    protocols: Mapping[str, MetricProtocol],
    workers: int = 1,
    device: str = "auto",
    size: Size = (None, None),
) -> dict[str, dict[str, float]]:
    """Evaluate a metric model on Ray, each image once.

    Args:
        protocols: by dataset.

    Returns:
        dataset → metric → mean over its images.

    Raises:
        ConfigError: if the model is none of metric depth.
        NotADataset: if a dataset has no such split, or no metric depth.
        ProtocolError: if predictions or images do not fit the protocol.
    """
    require_metric_model(model)
    require_metric_data(datasets)
    for dataset in datasets:
        dataset.manifest.split(split)  # before Ray is started
    job = partial(_shares, [d.folder.uri for d in datasets], split, dict(protocols), size)
    return whole_results(on_workers(job, model, workers, device), datasets, split)


def whole_results(
    parts: Sequence[Mapping[str, MetricSums]], datasets: Sequence[PreparedDataset], split: str
) -> dict[str, dict[str, float]]:
    """What all workers found together, once it is sure that each image was seen once.

    Args:
        parts: every worker's sums, by dataset.

    Returns:
        dataset → metric → mean over its images.

    Raises:
        RuntimeError: if images are missing or were seen twice.
    """
    results = {}
    for dataset in datasets:
        result = merged([part[dataset.name] for part in parts]).result()
        seen = result["images"] + result["empty_images"]
        expected = sum(shard.rows for shard in dataset.manifest.split(split))
        if seen != expected:
            raise RuntimeError(f"{dataset.name}: evaluated {seen:.0f} images of {expected}")
        results[dataset.name] = result
    return results


def require_metric_model(model: dpt.DPT) -> None:
    """Raises ConfigError, unless the model predicts depth in metres or 1/metres."""
    if model.config.task != "depth" or not model.config.metric:
        kind = "relative depth" if model.config.task == "depth" else model.config.task
        raise ConfigError(f"model: this is a model of {kind}, one of metric depth is needed")


def require_metric_data(datasets: Sequence[PreparedDataset]) -> None:
    """Raises NotADataset, naming the first dataset whose depth is not in metres."""
    for dataset in datasets:
        kind = dataset.manifest.target_kind
        if kind != "metric":
            raise NotADataset(
                f"{dataset.name} has no metric scale (its ground truth is {kind}): depth in metres is needed"
            )


def _shares(
    uris: list[str],
    split: str,
    protocols: Mapping[str, MetricProtocol],
    size: Size,
    model: dpt.DPT,
    rank: int,
    workers: int,
) -> dict[str, MetricSums]:
    return {
        dataset.name: metric_share(model, dataset, split, protocols[dataset.name], rank, workers, size)
        for dataset in open_datasets(uris)
    }


def metric_share(
    model: dpt.DPT,
    dataset: PreparedDataset,
    split: str,
    protocol: MetricProtocol,
    rank: int,
    workers: int,
    size: Size = (None, None),
) -> MetricSums:
    """One worker's share of a dataset."""
    sums = MetricSums()
    for batch in evaluation_batches(dataset, split, 0, rank, workers, _BATCH_SIZE, decode_metric_row):
        prediction = torch.from_numpy(predict_metres(model, list(batch.images.numpy()), protocol, size))
        sums.update(protocol_metrics(prediction, batch.target, protocol, batch.sample_ids))
    return sums


def decode_metric_row(row: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
    """Image (H, W, 3) and depth (H, W) float32 in metres, NaN where there is none (sky included).

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
    model: dpt.DPT, images: Sequence[NDArray[np.uint8]], protocol: MetricProtocol, size: Size = (None, None)
) -> NDArray[np.float32]:
    """Depth (B, H, W) of images of one size; with `kb_crop`, 0 outside of what the network saw."""
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
    """A contact sheet of the first images: image, ground truth, prediction, both as inverse depth."""
    rows, titles = [], []
    for dataset in datasets[:count]:
        batch = next(evaluation_batches(dataset, split, 0, 0, 1, 1, decode_metric_row))
        depth = predict_metres(model, list(batch.images.numpy()), protocol)[0]
        inverse = np.divide(1, depth, out=np.full_like(depth, np.nan), where=depth > 0)
        truth = 1 / batch.target[0].numpy()
        rows.append([batch.images[0].numpy(), colourise(truth), colourise(inverse)])
        titles.append(f"{dataset.name}: {batch.sample_ids[0]}  (image, ground truth, prediction)")
    return contact_sheet(rows, titles)
