"""Pixel accuracy and mean IoU of a segmentation model on prepared datasets (paper section 4.2).

Every labelled pixel of a split counts once, at the labels' own resolution: workers count pixels by label and
prediction, and the counts are added, so the figures are those of the whole set and not of batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.errors import UserError
from datasets_prep.inspect.contact_sheet import contact_sheet
from datasets_prep.manifest import NotADataset, PreparedDataset
from dpt.class_names import class_names
from dpt.metrics import SegmentationCounts
from dpt.predict.classes import predict_classes
from dpt.predict.colours import UNLABELLED, overlay, paint_classes
from dpt.predict.depth import evaluation_mode, input_size
from pipelines.config import PAPER_INFERENCE, EvaluateConfig, InferenceSection, require_size_fits
from pipelines.evaluation.sets import SEGMENTED
from pipelines.evaluation.share import MODEL_SIZE, InputSize, evaluate_shares
from pipelines.loading.rows import labelled_images
from pipelines.loading.same_size import SameSizeBatches
from pipelines.tracking.model_reference import BadModel

_BATCH_SIZE, _NAMES_SHOWN, _REASONS_SHOWN = 8, 4, 3

_OTHER_SPLIT = {"ade20k": {"val": "/training/", "train": "/validation/"}}
"""Dataset → split → part of the path of the files of its other split. Pascal Context's paths have none."""

Labelled = tuple[str, NDArray[np.uint8], NDArray[np.uint8]]


class MissingSamples(UserError):
    """Samples of the evaluated split could not be prepared, so an average would be over fewer."""


# ---- whether config, model and data fit together


def classes_of(dataset: PreparedDataset) -> tuple[str, ...]:
    """The class names of a prepared `dataset`.

    Raises:
        NotADataset: if its ground truth is not labels, or its classes are unknown.
    """
    kind = dataset.manifest.target_kind
    if kind != "labels":
        raise NotADataset(f"{dataset.name} has {kind} as ground truth, labels are needed here")
    try:
        return class_names(dataset.name)
    except ValueError as error:
        raise NotADataset(str(error)) from error


def require_same_classes(model: dpt.ModelConfig, dataset: PreparedDataset) -> None:
    """Check that a `model` predicts the classes of a `dataset`.

    Raises:
        NotADataset: if the dataset has no labels.
        BadModel: naming what the model predicts instead.
    """
    names = classes_of(dataset)
    if model.task != "segmentation":
        raise BadModel(f"this is a {model.task} model; {dataset.name} needs a segmentation model")
    if model.classes != len(names) or model.class_names not in ((), names):
        shown = ", ".join(model.class_names[:_NAMES_SHOWN])
        which = f" ({shown}, …)" if shown else ""
        raise BadModel(
            f"the model predicts {model.classes} classes{which}, not the {len(names)} of {dataset.name} "
            f"({', '.join(names[:_NAMES_SHOWN])}, …)"
        )


def check(config: EvaluateConfig, model: dpt.DPT, datasets: Sequence[PreparedDataset]) -> None:
    """Check before anything is started whether `config`, `model` and `datasets` fit together.

    Raises:
        NotADataset, BadModel: if model and datasets do not, or there is no such split.
        MissingSamples: if samples of the split were left out of the shards, unless `config.allow_missing`.
        ConfigError: if a size is set that windows do not have.
    """
    for dataset in datasets:
        require_same_classes(model.config, dataset)
        dataset.manifest.split(config.split)
        missing = [] if config.allow_missing else left_out(dataset, config.split)
        if missing:
            reasons = [f"{entry['source_path']}: {entry['reason']}" for entry in missing[:_REASONS_SHOWN]]
            more = len(missing) - _REASONS_SHOWN
            shown = "; ".join([*reasons, f"and {more} more"] if more > 0 else reasons)
            raise MissingSamples(
                f"{dataset.name}: {len(missing)} samples were left out of the shards: {shown} "
                "(--allow-missing evaluates the others, and says so)"
            )
    require_size_fits(config)


def is_official(name: str, config: EvaluateConfig, counts: SegmentationCounts) -> bool:
    """Whether `counts` of the dataset `name`, made as `config` says, belong into Table 4 or 5."""
    paper = SEGMENTED.get(name)
    protocol = config.split == "val" and config.inference == PAPER_INFERENCE
    return paper is not None and protocol and counts.images == paper.images


def left_out(dataset: PreparedDataset, split: str) -> list[dict[str, str]]:
    """`source_path` and `reason` of each quarantined sample of `dataset` that may belong to `split`."""
    entries = dataset.read_quarantine() if dataset.manifest.quarantined else []
    elsewhere = _OTHER_SPLIT.get(dataset.name, {}).get(split)
    return [entry for entry in entries if elsewhere is None or elsewhere not in f"/{entry['source_path']}"]


# ---- counting


def evaluate_segmentation(
    config: EvaluateConfig, model: dpt.DPT, datasets: Sequence[PreparedDataset]
) -> dict[str, SegmentationCounts]:
    """Count pixels of a split of `datasets` by label and prediction of a `model` on Ray, as `config` says.

    Returns:
        dataset → counts of all its images.

    Raises:
        UserError: see `check`.
        BadRow: naming a sample whose labels are damaged.
    """
    check(config, model, datasets)
    size = (config.side, config.rule)
    share = partial(count_share, split=config.split, inference=config.inference, size=size)
    shares = {dataset.name: share for dataset in datasets}
    resources = (config.workers, config.device)
    return evaluate_shares(shares, model, datasets, config.split, *resources, exact=config.exact)


def count_share(
    model: dpt.DPT,
    dataset: PreparedDataset,
    rank: int,
    world_size: int,
    split: str,
    inference: InferenceSection,
    size: InputSize = MODEL_SIZE,
) -> SegmentationCounts:
    """See `pipelines.evaluation.share.Share`: counts of the pixels of a worker's images of a split.

    `inference` has windows and scales; without scales each image goes through the network as a whole, at the
    network's input `size`.

    Raises:
        NotADataset, BadModel: if model and dataset do not fit together, or there is no such split; BadModel
            also if a prediction is not finite.
    """
    require_same_classes(model.config, dataset)
    counts = SegmentationCounts(model.config.classes)
    images = labelled_images(dataset, split, rank, world_size)
    batches = SameSizeBatches[Labelled](_BATCH_SIZE)
    for batch in batches.of(images, lambda one: input_size(model, one[1], *size)):
        with evaluation_mode(model):
            seen = [image for _, image, _ in batch]
            predictions = predict_classes(model, seen, inference.scales, inference.flip, *size)
        for (name, _, labels), prediction in zip(batch, predictions, strict=True):
            if (prediction == UNLABELLED).any():
                raise BadModel(f"the model predicts no finite number in image {name}")
            counts.update(torch.from_numpy(prediction)[None], torch.from_numpy(labels)[None])
    return counts


def sample_segmentations(
    model: dpt.DPT, datasets: Sequence[PreparedDataset], split: str, count: int
) -> NDArray[np.uint8]:
    """A contact sheet of `model`'s predictions, (H, W, 3) uint8 RGB: image, labels, prediction, overlay.

    `count` images are shown, the first ones of the `split` of each of the `datasets`.
    """
    rows: list[list[NDArray[np.uint8]]] = []
    titles = []
    for place, dataset in enumerate(datasets):
        wanted = count // len(datasets) + (place < count % len(datasets))
        for name, image, labels in islice(labelled_images(dataset, split, 0, 1), wanted):
            with evaluation_mode(model):
                (prediction,) = predict_classes(model, [image])
            painted = [paint_classes(labels), paint_classes(prediction), overlay(image, prediction)]
            rows.append([image, *painted])
            titles.append(f"{dataset.name}: {name}  (image, labels, prediction, overlay)")
    return contact_sheet(rows, titles)
