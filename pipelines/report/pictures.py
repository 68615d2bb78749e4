"""What a depth model does with a few images of prepared datasets: prediction and error, resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import dpt
from datasets_prep.manifest import PreparedDataset
from dpt.alignment import least_squares_scale_shift
from dpt.metrics import depth_metrics
from dpt.predict.depth import colourise, display_range, predict_inverse_depth
from pipelines.config import CapsSection
from pipelines.evaluate import normalised_caps
from pipelines.loading.batches import evaluation_batches
from pipelines.prediction.outputs import inverse_depth_of
from pipelines.report.model_pictures import Picture, Shown, sides_of_figure_4, split_to_show

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
