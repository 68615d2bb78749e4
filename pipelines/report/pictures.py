"""What a depth model does with a few images of prepared datasets: prediction and error, resolution."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

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


@dataclass(frozen=True, slots=True)
class Sample:
    """An image with ground truth.

    Attributes:
        name: dataset and sample.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) float32 inverse depth, NaN where there is none.
        cap: depth in the inverse of the truth's unit, beyond which nothing counts.
    """

    name: str
    image: Picture
    truth: NDArray[np.float32]
    cap: float


def samples_of(datasets: Sequence[PreparedDataset], count: int, split: str | None) -> list[Sample]:
    """The first samples of each dataset.

    Args:
        split: of all datasets; by default the validation split, or else the last one, of each.

    Raises:
        NotADataset: if a dataset has no depth maps, or no such split.
    """
    return [sample for dataset in datasets for sample in _samples(dataset, count, split)]


def _samples(dataset: PreparedDataset, count: int, split: str | None) -> Iterator[Sample]:
    batches = evaluation_batches(dataset, split or split_to_show(dataset), 0, 0, 1, batch_size=1)
    for _, batch in zip(range(count), batches, strict=False):
        cap = float(normalised_caps(batch, CapsSection())[0])
        truth = batch.target[0].float().numpy()
        yield Sample(f"{dataset.name}: {batch.sample_ids[0]}", batch.images[0].numpy(), truth, cap)


def show(network: dpt.DPT, sample: Sample) -> Shown:
    """Predict a sample; its error is that of depth after alignment, relative to the ground truth."""
    prediction = _inverse_depth(network, sample)
    aligned, counted = _aligned(prediction, sample)
    limits = display_range(np.where(counted, sample.truth, np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(counted, np.abs(sample.truth / aligned - 1), np.nan)
    return Shown(
        sample.name,
        {"AbsRel": _abs_rel(prediction, sample)},
        {
            "image": sample.image,
            "ground truth": _painted(np.where(counted, sample.truth, np.nan), "inferno", limits),
            "prediction, aligned": _painted(aligned, "inferno", limits),
            f"relative error, 0 to {WORST_ERROR:.0%}": _painted(error, "magma", (0.0, WORST_ERROR)),
        },
    )


def by_resolution(network: dpt.DPT, samples: Sequence[Sample]) -> dict[int, float]:
    """Side of the network's input in pixels → mean AbsRel of the samples."""
    return {
        side: float(np.mean([_abs_rel(_inverse_depth(network, sample, side), sample) for sample in samples]))
        for side in sides_of_figure_4(network)
    }


def _inverse_depth(network: dpt.DPT, sample: Sample, side: int | None = None) -> NDArray[np.float32]:
    return inverse_depth_of(predict_inverse_depth(network, sample.image, side), network.config)


def _aligned(
    prediction: NDArray[np.float32], sample: Sample
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The prediction in the truth's unit, and where it is compared: as `dpt.metrics.depth_metrics` does."""
    counted = np.nan_to_num(sample.truth) > 1 / sample.cap
    one = (torch.from_numpy(values)[None] for values in (prediction, np.nan_to_num(sample.truth), counted))
    scale, shift = least_squares_scale_shift(*one)
    aligned = scale.item() * prediction.astype(np.float64) + shift.item()
    return np.maximum(aligned, 1 / sample.cap), counted


def _abs_rel(prediction: NDArray[np.float32], sample: Sample) -> float:
    valid = torch.from_numpy(np.isfinite(sample.truth))[None]
    truth = torch.from_numpy(np.nan_to_num(sample.truth))[None]
    return float(depth_metrics(torch.from_numpy(prediction)[None], truth, valid, sample.cap)["abs_rel"][0])


def _painted(values: NDArray[np.floating], colours: str, limits: tuple[float, float]) -> Picture:
    return np.asarray(colourise(values, colours, limits), np.uint8)


REFERENCES = ((0.25, 0.25), (0.75, 0.75))
"""Tokens whose attention is drawn, in shares of height and width."""


FIGURE_4_STEPS = (1.0, 7 / 6, 4 / 3, 3 / 2, 5 / 3)
"""Sides of Figure 4, 384 to 640 pixels, in those of training."""


Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shown:
    """A prediction to look at: its name, metrics, and pictures (H, W, 3) uint8 RGB by what they show."""

    name: str
    metrics: dict[str, float]
    pictures: dict[str, Picture]


def split_to_show(dataset: PreparedDataset) -> str:
    """The validation split, or else the last one."""
    splits = dataset.manifest.samples
    usual = EvaluateConfig().split
    return usual if usual in splits else list(splits)[-1]


def attention_of(network: dpt.DPT, image: Picture) -> Picture | None:
    """Figures A4 and A5: where tokens attend to in the tapped layers; None of a backbone without tokens."""
    try:
        layers = check_layers(network, ()).layers
    except ValueError:
        return None
    return attention_figure(network, image, layers, REFERENCES)


def sides_of_figure_4(network: dpt.DPT) -> list[int]:
    """Sides of the network's input in pixels, from that of training on."""
    divisor = network.size_divisor
    return sorted({round(network.config.image_size * step / divisor) * divisor for step in FIGURE_4_STEPS})


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
