"""What a segmentation model does with a few images of prepared datasets: classes, errors, resolution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

import dpt
from datasets_prep.manifest import PreparedDataset
from datasets_prep.sources.base import IGNORED_LABEL
from dpt.metrics import SegmentationCounts
from dpt.predict.classes import predict_classes
from dpt.predict.colours import paint_classes
from pipelines.evaluation.segmentation import require_same_classes
from pipelines.loading.labelled_rows import labelled_images
from pipelines.report.model_pictures import Picture, Shown, sides_of_figure_4, split_to_show

_WRONG = (230, 30, 30)
_DIMMED = 0.5


@dataclass(frozen=True, slots=True)
class LabelledSample:
    """An image with labels.

    Attributes:
        name: dataset and sample.
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8 classes, 255 where nothing is labelled.
    """

    name: str
    image: Picture
    labels: Picture


def labelled_samples_of(
    network: dpt.DPT, datasets: Sequence[PreparedDataset], count: int, split: str | None
) -> list[LabelledSample]:
    """The first samples of each dataset.

    Args:
        split: of all datasets; by default the validation split, or else the last one, of each.

    Raises:
        NotADataset, BadModel: if a dataset has no labels, or others than the model predicts, or no such
            split.
    """
    samples = []
    for dataset in datasets:
        require_same_classes(network.config, dataset)
        found = labelled_images(dataset, split or split_to_show(dataset), 0, 1)
        samples += [LabelledSample(f"{dataset.name}: {name}", *pair) for name, *pair in islice(found, count)]
    return samples


def show_classes(network: dpt.DPT, sample: LabelledSample) -> Shown:
    """Predict a sample, as a whole image."""
    (prediction,) = predict_classes(network, [sample.image])
    result = _count_pixels(network, [(sample, prediction)]).result()
    labelled = sample.labels != IGNORED_LABEL
    grey = np.repeat(sample.image.mean(axis=2, keepdims=True) * _DIMMED, 3, axis=2)
    errors = np.where(labelled[..., None], grey, 0).astype(np.uint8)
    errors[labelled & (prediction != sample.labels)] = _WRONG
    return Shown(
        sample.name,
        {"pixAcc": result["pix_acc"], "mIoU": result["miou"]},
        {
            "image": sample.image,
            "labels": paint_classes(sample.labels),
            "prediction": paint_classes(prediction),
            "wrong pixels in red": errors,
        },
    )


def miou_by_resolution(network: dpt.DPT, samples: Sequence[LabelledSample]) -> dict[int, float]:
    """Side of the network's input in pixels → mIoU over all pixels of the samples, as whole images."""
    found = {}
    for side in sides_of_figure_4(network):
        predictions = [predict_classes(network, [sample.image], target=side)[0] for sample in samples]
        found[side] = _count_pixels(network, zip(samples, predictions, strict=True)).result()["miou"]
    return found


def _count_pixels(
    network: dpt.DPT, predicted: Iterable[tuple[LabelledSample, Picture]]
) -> SegmentationCounts:
    """Pixels by label and prediction."""
    counts = SegmentationCounts(network.config.classes)
    for sample, prediction in predicted:
        counts.update(torch.from_numpy(prediction)[None], torch.from_numpy(sample.labels)[None])
    return counts
