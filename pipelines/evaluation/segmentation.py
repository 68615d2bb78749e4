"""Pixel accuracy and mean IoU of a segmentation model on prepared datasets (paper section 4.2).

Every labelled pixel of a split counts once, at the labels' own resolution: workers count pixels by label and
prediction, and the counts are added, so the figures are those of the whole set and not of batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.errors import UserError
from datasets_prep.inspect.contact_sheet import contact_sheet
from datasets_prep.manifest import QUARANTINE_NAME, NotADataset, PreparedDataset, open_datasets
from dpt.class_names import class_names
from dpt.metrics import SegmentationCounts
from dpt.predict.classes import predict_classes
from dpt.predict.colours import overlay, paint_classes
from dpt.predict.depth import evaluation_mode, input_size
from pipelines.cluster.workers import on_workers
from pipelines.config import ConfigError, EvaluateConfig, InferenceSection, PredictConfig
from pipelines.loading.batches import SameSizeBatches
from pipelines.loading.rows import labelled_images
from pipelines.tracking.model_reference import BadModel

_BATCH_SIZE = 8
_NAMES_SHOWN = 4

Labelled = tuple[str, NDArray[np.uint8], NDArray[np.uint8]]


def classes_of(dataset: PreparedDataset) -> tuple[str, ...]:
    """The names of a prepared dataset's classes.

    Raises:
        NotADataset: if its ground truth is no labels, or its classes are not known.
    """
    kind = dataset.manifest.target_kind
    if kind != "labels":
        raise NotADataset(f"{dataset.name} has {kind} as ground truth, labels are needed here")
    try:
        return class_names(dataset.name)
    except ValueError as error:
        raise NotADataset(str(error)) from error


def require_same_classes(model: dpt.ModelConfig, dataset: PreparedDataset) -> None:
    """Refuse a model that does not predict a dataset's classes.

    Raises:
        NotADataset: if the dataset has no labels.
        BadModel: saying what the model predicts instead.
    """
    names = classes_of(dataset)
    if model.task != "segmentation":
        raise BadModel(f"this is a {model.task} model; {dataset.name} needs one of segmentation")
    if model.classes != len(names) or model.class_names not in ((), names):
        shown = ", ".join(model.class_names[:_NAMES_SHOWN])
        which = f" ({shown}, …)" if shown else ""
        raise BadModel(
            f"the model predicts {model.classes} classes{which}, not the {len(names)} of {dataset.name} "
            f"({', '.join(names[:_NAMES_SHOWN])}, …)"
        )


def require_size_fits(config: EvaluateConfig | PredictConfig) -> None:
    """Refuse a size of whole images where they are cut in windows.

    Raises:
        ConfigError: naming the setting.
    """
    for name, value in (("side", config.side), ("rule", config.rule)):
        if value is not None and config.inference.scales:
            raise ConfigError(
                f"{name}: windows have the size that the model was trained at; inference.scales=[] takes "
                "whole images of any size"
            )


def count_share(
    model: dpt.DPT,
    dataset: PreparedDataset,
    split: str,
    inference: InferenceSection,
    rank: int,
    world_size: int,
    side: int | None = None,
    rule: str | None = None,
) -> SegmentationCounts:
    """One worker's share of a dataset.

    Args:
        inference: windows and scales; without scales each image goes through the network as a whole.
        side, rule: of the whole image in the network, see `transforms.network_size`; None for the
            model's own.

    Raises:
        NotADataset, BadModel: if model and dataset do not go together, or there is no such split.
    """
    require_same_classes(model.config, dataset)
    counts = SegmentationCounts(model.config.classes)
    images = labelled_images(dataset, split, rank, world_size)
    batches = SameSizeBatches[Labelled](_BATCH_SIZE)
    for batch in batches.of(images, lambda one: input_size(model, one[1], side, rule)):
        predictions = _predict(model, [image for _, image, _ in batch], inference, side, rule)
        for (_, _, labels), prediction in zip(batch, predictions, strict=True):
            counts.update(torch.from_numpy(prediction)[None], torch.from_numpy(labels)[None])
    return counts


def sample_segmentations(
    model: dpt.DPT, datasets: Sequence[PreparedDataset], split: str, count: int
) -> NDArray[np.uint8]:
    """A contact sheet of each dataset's first images, `count` in all: image, labels, prediction, overlay."""
    rows: list[list[NDArray[np.uint8]]] = []
    titles = []
    for place, dataset in enumerate(datasets):
        wanted = count // len(datasets) + (place < count % len(datasets))
        for name, image, labels in islice(labelled_images(dataset, split, 0, 1), wanted):
            (prediction,) = _predict(model, [image], InferenceSection())
            painted = [paint_classes(labels), paint_classes(prediction), overlay(image, prediction)]
            rows.append([image, *painted])
            titles.append(f"{dataset.name}: {name}  (image, labels, prediction, overlay)")
    return contact_sheet(rows, titles)


def _predict(
    model: dpt.DPT,
    images: Sequence[NDArray[np.uint8]],
    inference: InferenceSection,
    side: int | None = None,
    rule: str | None = None,
) -> list[NDArray[np.uint8]]:
    with evaluation_mode(model):
        return predict_classes(model, images, inference.scales, inference.flip, side, rule)


_REASONS_SHOWN = 3


_OTHER_SPLIT = {"ade20k": {"val": "/training/", "train": "/validation/"}}
"""What a file's path has in it if it belongs to the other split; of Pascal Context it does not tell."""


class MissingSamples(UserError):
    """Samples of the evaluated split could not be prepared, so an average would be over fewer."""


def has_labels(datasets: Sequence[PreparedDataset]) -> bool:
    """Whether these are segmentation sets.

    Raises:
        NotADataset: if some are and some are not; they have no metric in common.
    """
    labelled = [d.name for d in datasets if d.manifest.target_kind == "labels"]
    others = [d.name for d in datasets if d.manifest.target_kind != "labels"]
    if labelled and others:
        raise NotADataset(f"{labelled[0]} has labels and {others[0]} has none: evaluate them separately")
    return bool(labelled)


def check(config: EvaluateConfig, model: dpt.DPT, datasets: Sequence[PreparedDataset]) -> None:
    """Find out before anything is started whether config, model and data go together.

    Raises:
        NotADataset, BadModel: if model and datasets do not go together, or there is no such split.
        MissingSamples: if samples of the split were left out of the shards, unless `config.allow_missing`.
        ConfigError: if a size is asked for that windows do not have.
    """
    for dataset in datasets:
        require_same_classes(model.config, dataset)
        dataset.manifest.split(config.split)
        if not config.allow_missing:
            require_whole(dataset, config.split)
    require_size_fits(config)


def evaluate_segmentation(
    config: EvaluateConfig, model: dpt.DPT, datasets: Sequence[PreparedDataset]
) -> dict[str, SegmentationCounts]:
    """Count the pixels of a split of every dataset by label and prediction.

    Args:
        model: on any device.

    Returns:
        dataset → counts of all its images.

    Raises:
        UserError: see `check`.
        BadLabels: naming a sample whose labels are damaged.
    """
    check(config, model, datasets)
    expected = {d.name: sum(shard.rows for shard in d.manifest.split(config.split)) for d in datasets}
    job = partial(_shares, [d.folder.uri for d in datasets], config)
    parts = on_workers(job, model, config.workers, config.device)
    total = {d.name: SegmentationCounts(model.config.classes) for d in datasets}
    for name, counts in total.items():
        for part in parts:
            counts.merge(part[name])
        if counts.images != expected[name]:
            raise RuntimeError(f"{name}: evaluated {counts.images} images of {expected[name]}")
    return total


def left_out(dataset: PreparedDataset, split: str) -> list[dict[str, Any]]:
    """The samples that ingest could not use and that may be of this split: `source_path` and `reason`."""
    if not dataset.manifest.quarantined:
        return []
    with dataset.folder.fs.open(dataset.folder.path_of(QUARANTINE_NAME), "rb") as file:
        entries = pq.read_table(file).to_pylist()
    elsewhere = _OTHER_SPLIT.get(dataset.name, {}).get(split)
    return [entry for entry in entries if elsewhere is None or elsewhere not in f"/{entry['source_path']}"]


def require_whole(dataset: PreparedDataset, split: str) -> None:
    """Refuse a split of which samples were left out.

    Raises:
        MissingSamples: with how many, and the first of them.
    """
    missing = left_out(dataset, split)
    if missing:
        shown = "; ".join(f"{entry['source_path']}: {entry['reason']}" for entry in missing[:_REASONS_SHOWN])
        more = f"; and {len(missing) - _REASONS_SHOWN} more" if len(missing) > _REASONS_SHOWN else ""
        raise MissingSamples(
            f"{dataset.name}: {len(missing)} samples were left out of the shards: {shown}{more} "
            "(--allow-missing evaluates the others, and says so)"
        )


def _shares(
    uris: list[str], config: EvaluateConfig, model: dpt.DPT, rank: int, workers: int
) -> dict[str, SegmentationCounts]:
    shares = (config.inference, rank, workers, config.side, config.rule)
    return {d.name: count_share(model, d, config.split, *shares) for d in open_datasets(uris)}
