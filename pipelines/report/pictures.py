"""What a model does with a few images of prepared datasets: predictions, errors, attention, resolution.

Depth is compared after alignment by scale and shift, as in `pipelines.evaluation.relative_depth`; classes are
predicted for whole images in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.manifest import PreparedDataset
from datasets_prep.sources.base import IGNORED_LABEL
from dpt.alignment import least_squares_scale_shift
from dpt.metrics import SegmentationCounts, depth_metrics
from dpt.predict.attention import check_layers
from dpt.predict.classes import predict_classes
from dpt.predict.colours import colourise, display_range, paint_classes
from dpt.predict.depth import inverse_depth_of, predict_inverse_depth
from pipelines.config import CapsSection, EvaluateConfig
from pipelines.evaluation.relative_depth import normalised_caps
from pipelines.evaluation.segmentation import require_same_classes
from pipelines.loading.batches import evaluation_batches
from pipelines.loading.rows import labelled_images
from pipelines.prediction.attention_figure import attention_figure

WORST_ERROR = 0.5
"""Relative error that has the brightest colour."""

REFERENCES = ((0.25, 0.25), (0.75, 0.75))
"""Tokens whose attention is drawn, in fractions of height and width."""

FIGURE_4_STEPS = (1.0, 7 / 6, 4 / 3, 3 / 2, 5 / 3)
"""Sides of Figure 4, 384 to 640 pixels, relative to that of training."""

_WRONG = (230, 30, 30)
_DIMMED = 0.5

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Sample:
    """An image with ground truth.

    Attributes:
        name: dataset and sample.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) float32 inverse depth, NaN where invalid; or uint8 classes, 255 where unlabelled.
        cap: depth in the inverse of the truth's unit, beyond which ground truth is ignored.
    """

    name: str
    image: Picture
    truth: NDArray[Any]
    cap: float = float("inf")


@dataclass(frozen=True, slots=True)
class Shown:
    """A prediction of sample `name`: `metrics` by display name, `pictures` (H, W, 3) uint8 by caption."""

    name: str
    metrics: dict[str, float]
    pictures: dict[str, Picture]


def samples_of(
    model: dpt.DPT, datasets: Sequence[PreparedDataset], count: int, split: str | None
) -> list[Sample]:
    """The first `count` samples of each of the `datasets`, which have ground truth of the kind of `model`.

    Of their `split`; by default each one's validation split, or else its last one.

    Raises:
        NotADataset, BadModel: if a dataset has other ground truth, or no such split.
    """
    usual = EvaluateConfig().split
    found: list[Sample] = []
    for dataset in datasets:
        splits = list(dataset.manifest.samples)
        chosen = split or (usual if usual in splits else splits[-1])
        found += islice(_samples(model, dataset, chosen), count)
    return found


def _samples(model: dpt.DPT, dataset: PreparedDataset, split: str) -> Iterator[Sample]:
    if model.config.task == "segmentation":
        require_same_classes(model.config, dataset)
        for name, image, labels in labelled_images(dataset, split, 0, 1):
            yield Sample(f"{dataset.name}: {name}", image, labels)
        return
    for batch in evaluation_batches(dataset, split, 0, 0, 1, batch_size=1):
        cap = float(normalised_caps(batch, CapsSection())[0])
        truth = batch.target[0].float().numpy()
        yield Sample(f"{dataset.name}: {batch.sample_ids[0]}", batch.images[0].numpy(), truth, cap)


def show(model: dpt.DPT, sample: Sample) -> Shown:
    """Predict a `sample` with a `model`, and draw prediction and error."""
    return _show_classes(model, sample) if model.config.task == "segmentation" else _show_depth(model, sample)


def by_resolution(model: dpt.DPT, samples: Sequence[Sample]) -> dict[int, float]:
    """Side of the `model`'s input in pixels, from that of training on (Figure 4) → metric of the `samples`.

    The metric is the mean AbsRel over the samples, or the mIoU over all their pixels.
    """

    def metric(side: int) -> float:
        if model.config.task != "segmentation":
            return float(np.mean([_abs_rel(_inverse_depth(model, one, side), one) for one in samples]))
        predictions = [predict_classes(model, [sample.image], target=side)[0] for sample in samples]
        return _counts(model, samples, predictions).result()["miou"]

    divisor = model.size_divisor
    sides = sorted({round(model.config.side * step / divisor) * divisor for step in FIGURE_4_STEPS})
    return {side: metric(side) for side in sides}


def attention_of(model: dpt.DPT, image: Picture) -> Picture | None:
    """Attention of a `model` in its tapped layers on an `image` (Figures A4, A5); None without tokens."""
    try:
        layers = check_layers(model, ()).layers
    except ValueError:
        return None
    return attention_figure(model, image, layers, REFERENCES)


# ---- depth


def _show_depth(model: dpt.DPT, sample: Sample) -> Shown:
    prediction = _inverse_depth(model, sample)
    # In the truth's unit, and compared where `dpt.metrics.depth_metrics` does.
    counted = np.nan_to_num(sample.truth) > 1 / sample.cap
    one = (torch.from_numpy(values)[None] for values in (prediction, np.nan_to_num(sample.truth), counted))
    scale, shift = least_squares_scale_shift(*one)
    aligned = np.maximum(scale.item() * prediction.astype(np.float64) + shift.item(), 1 / sample.cap)
    truth = np.where(counted, sample.truth, np.nan)
    limits = display_range(truth)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(counted, np.abs(sample.truth / aligned - 1), np.nan)
    pictures = {
        "image": sample.image,
        "ground truth": colourise(truth, "inferno", limits),
        "prediction, aligned": colourise(aligned, "inferno", limits),
        f"relative error, 0 to {WORST_ERROR:.0%}": colourise(error, "magma", (0.0, WORST_ERROR)),
    }
    return Shown(sample.name, {"AbsRel": _abs_rel(prediction, sample)}, pictures)


def _inverse_depth(model: dpt.DPT, sample: Sample, side: int | None = None) -> NDArray[np.float32]:
    return inverse_depth_of(predict_inverse_depth(model, sample.image, side), model.config)


def _abs_rel(prediction: NDArray[np.float32], sample: Sample) -> float:
    valid = torch.from_numpy(np.isfinite(sample.truth))[None]
    truth = torch.from_numpy(np.nan_to_num(sample.truth))[None]
    return float(depth_metrics(torch.from_numpy(prediction)[None], truth, valid, sample.cap)["abs_rel"][0])


# ---- classes


def _show_classes(model: dpt.DPT, sample: Sample) -> Shown:
    (prediction,) = predict_classes(model, [sample.image])
    result = _counts(model, [sample], [prediction]).result()
    labelled = sample.truth != IGNORED_LABEL
    grey = np.repeat(sample.image.mean(axis=2, keepdims=True) * _DIMMED, 3, axis=2)
    errors = np.where(labelled[..., None], grey, 0).astype(np.uint8)
    errors[labelled & (prediction != sample.truth)] = _WRONG
    painted = {"labels": paint_classes(sample.truth), "prediction": paint_classes(prediction)}
    pictures = {"image": sample.image, **painted, "wrong pixels in red": errors}
    return Shown(sample.name, {"pixAcc": result["pix_acc"], "mIoU": result["miou"]}, pictures)


def _counts(model: dpt.DPT, samples: Sequence[Sample], predictions: Sequence[Picture]) -> SegmentationCounts:
    counts = SegmentationCounts(model.config.classes)
    for sample, prediction in zip(samples, predictions, strict=True):
        counts.update(torch.from_numpy(prediction)[None], torch.from_numpy(sample.truth)[None])
    return counts
