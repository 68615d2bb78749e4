"""Evaluation metrics: one value per image, and sums that can be merged in any order.

Zero-shot protocol of Ranftl et al., TPAMI 2020, section 6 (adopted in section 4.1 of the DPT paper).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from dpt.alignment import least_squares_scale_shift, masked


def depth_metrics(
    prediction: Tensor, target_inverse_depth: Tensor, valid: Tensor, depth_cap: float | Tensor
) -> dict[str, Tensor]:
    """Metrics of an affine-invariant prediction, after alignment to the ground truth in inverse depth.

    Valid pixels nearer than the cap count. Scale and shift are fitted to them by least squares; the aligned
    inverse depth is clamped to at least 1 / cap and inverted.

    Args:
        prediction: (B, H, W) inverse depth up to scale and shift.
        target_inverse_depth: (B, H, W), e.g. in 1/m.
        valid: (B, H, W) bool.
        depth_cap: largest depth, in the inverse of the target's unit, e.g. m; one number or (B,).

    Returns:
        The (B,) metrics of `metric_depth_metrics`.
    """
    cap = torch.as_tensor(depth_cap, dtype=torch.float64, device=prediction.device).expand(len(prediction))
    floor = (1 / cap)[:, None, None]
    target = target_inverse_depth.double()
    counted = valid & (target > floor)
    depth, _, _ = aligned_depth(prediction, target, counted, cap)
    return metric_depth_metrics(depth, 1 / target, counted)


def aligned_depth(
    prediction: Tensor, target_inverse_depth: Tensor, valid: Tensor, depth_cap: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Depth of an affine-invariant prediction after alignment to the ground truth in inverse depth.

    Args:
        prediction: (B, H, W) inverse depth up to scale and shift.
        target_inverse_depth: (B, H, W) float64.
        valid: (B, H, W) bool, the pixels that scale and shift are fitted to by least squares.
        depth_cap: (B,) float64; the aligned inverse depth is clamped to at least its inverse.

    Returns:
        (B, H, W) depth, at most the cap, and (B,) scale and shift; all float64.
    """
    scale, shift = least_squares_scale_shift(prediction, target_inverse_depth, valid)
    aligned = scale[:, None, None] * prediction.double() + shift[:, None, None]
    return 1 / aligned.maximum((1 / depth_cap)[:, None, None]), scale, shift


def metric_depth_metrics(prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Metrics of positive depth maps as they are, e.g. for the models fine-tuned on KITTI and NYUv2.

    Args:
        prediction: (B, H, W) depth, positive where valid.
        target: (B, H, W) depth in the same unit, positive where valid.
        valid: (B, H, W) bool.

    Returns:
        (B,) float64 tensors. ``pixels``: number of valid pixels; without any, all other metrics are NaN.
        ``abs_rel``, ``sq_rel``, ``rmse``, ``rmse_log``, ``log10``, ``silog`` (100 times the
        standard deviation of the log ratio, as KITTI reports it), ``delta1`` to ``delta3``: share of pixels
        with max(p/t, t/p) < 1.25ᵏ, and ``delta1_error`` to ``delta3_error``, their complements, which Table
        1 reports.
    """
    # Invalid pixels become 1 in both: their difference and log ratio are 0 and add nothing to the sums.
    prediction = prediction.double().masked_fill(~valid, 1.0)
    target = target.double().masked_fill(~valid, 1.0)
    pixels = valid.sum(dim=(1, 2)).double()

    def mean(values: Tensor) -> Tensor:
        return values.sum(dim=(1, 2)) / pixels

    difference = prediction - target
    quotient = prediction / target
    log_ratio = quotient.log()
    ratio = torch.maximum(quotient, 1 / quotient)
    abs_rel = mean(difference.abs() / target)
    square = difference.square()
    centred = masked(log_ratio - mean(log_ratio)[:, None, None], valid)
    metrics = {
        "pixels": pixels,
        "abs_rel": abs_rel,
        "sq_rel": mean(square / target),
        "rmse": mean(square).sqrt(),
        "rmse_log": mean(log_ratio.square()).sqrt(),
        "log10": mean(log_ratio.abs()) / torch.log(log_ratio.new_tensor(10.0)),
        "silog": 100 * mean(centred.square()).sqrt(),
    }
    for power in (1, 2, 3):
        beyond = (ratio >= 1.25**power).sum(dim=(1, 2)) / pixels
        error = torch.where(abs_rel.isnan(), abs_rel, beyond)
        metrics[f"delta{power}"] = 1 - error
        metrics[f"delta{power}_error"] = error
    return metrics


def whdr(prediction: Tensor, first: Tensor, second: Tensor, relation: Tensor) -> Tensor:
    """Weighted human disagreement rate: share of point pairs whose predicted order is not the annotated one.

    Chen et al., Single-Image Depth Perception in the Wild (2016); needs no alignment. With equal weights, as
    on DIW, which has one pair per image and no equal pairs. Equal predictions count as equally far.

    Args:
        prediction: (B, H, W) inverse depth (large is near).
        first: (B, P, 2) int64 pixel positions (row, column) of each pair's first point.
        second: (B, P, 2) int64, of its second point.
        relation: (B, P) int64: 1 if the first point is nearer, -1 if the second is, 0 if equally far.

    Returns:
        (B,) float64 share in [0, 1].
    """
    rows = torch.arange(len(prediction), device=prediction.device)[:, None]
    a, b = (prediction[rows, points[..., 0], points[..., 1]].double() for points in (first, second))
    return (torch.sign(a - b) != relation).double().mean(dim=1)


@dataclass
class MetricSums:
    """Running sums of per-image metrics; merging is addition, so batching and workers do not matter.

    Attributes:
        sums: metric → its sum over images.
        images: number of images in the sums.
        empty_images: number of images without valid pixels (``pixels`` of 0); they enter no average.
    """

    sums: dict[str, float] = field(default_factory=dict)
    images: int = 0
    empty_images: int = 0

    def update(self, metrics: Mapping[str, Tensor]) -> None:
        """Add a batch: `metrics` are (B,) tensors by name, always the same names, ``pixels`` optional."""
        values = {key: value.detach().double().cpu() for key, value in metrics.items()}
        count = len(next(iter(values.values())))
        counted = values.pop("pixels", torch.ones(count)) > 0
        self._add({key: float(value[counted].sum()) for key, value in values.items()})
        self.images += int(counted.sum())
        self.empty_images += count - int(counted.sum())

    def merge(self, other: "MetricSums") -> None:
        """Add `other`, the sums of another worker."""
        self._add(other.sums)
        self.images += other.images
        self.empty_images += other.empty_images

    def result(self) -> dict[str, float]:
        """Mean over images of every metric (NaN without any), with ``images`` and ``empty_images``."""
        means = {key: value / (self.images or float("nan")) for key, value in self.sums.items()}
        return {**means, "images": float(self.images), "empty_images": float(self.empty_images)}

    def _add(self, sums: Mapping[str, float]) -> None:
        if self.sums and sums and self.sums.keys() != sums.keys():
            raise ValueError(f"metrics differ: {sorted(self.sums)} and {sorted(sums)}")
        self.sums = {key: self.sums.get(key, 0.0) + value for key, value in sums.items()} or self.sums


class SegmentationCounts:
    """Confusion counts for pixel accuracy and mean intersection over union (section 4.2).

    Integers, so images, batches and workers may be added in any order.

    Args:
        classes: number of classes, K.
        ignore_index: label of unlabelled pixels, which are left out.

    Attributes:
        confusion: (K, K) int64 number of pixels by label (row) and predicted class (column).
        images: number of images added.
    """

    def __init__(self, classes: int, ignore_index: int = 255):
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self.images = 0
        self.ignore_index = ignore_index

    def update(self, prediction: Tensor, labels: Tensor) -> None:
        """Add (B, H, W) integer predicted classes (`prediction`) and `labels`.

        Raises ValueError if the shapes differ, or a value is not a class.
        """
        if prediction.shape != labels.shape:
            raise ValueError(f"predictions are {tuple(prediction.shape)}, labels {tuple(labels.shape)}")
        counted = labels != self.ignore_index
        classes = len(self.confusion)
        found, wanted = prediction[counted].long(), labels[counted].long()
        for what, values in (("label", wanted), ("predicted class", found)):
            wrong = values[(values < 0) | (values >= classes)]
            if wrong.numel():
                known = f"{classes} classes, 0 to {classes - 1}"
                raise ValueError(f"{what} {int(wrong[0])} is not one of {known}")
        # (label, prediction) is one number in base K, so one count of numbers fills the whole matrix.
        pairs = torch.bincount(classes * wanted + found, minlength=classes**2)
        self.confusion += pairs.reshape(classes, classes).cpu()
        self.images += len(labels)

    def merge(self, other: "SegmentationCounts") -> None:
        """Add `other`, the counts of another worker."""
        self.confusion += other.confusion
        self.images += other.images

    def class_iou(self) -> Tensor:
        """(K,) float64 intersection over union; NaN for a class in neither labels nor predictions."""
        correct = self.confusion.diagonal().double()
        return correct / (self.confusion.sum(dim=0) + self.confusion.sum(dim=1) - correct)

    def result(self) -> dict[str, float]:
        """``pix_acc`` over all pixels and ``miou`` over the classes that occur in labels or predictions.

        Both are NaN without labelled pixels. Also ``images``, ``pixels`` and ``classes``, the number of
        classes that the mean is over.
        """
        iou = self.class_iou()
        return {
            "pix_acc": float(self.confusion.diagonal().sum().double() / self.confusion.sum()),
            "miou": float(iou.nanmean()),
            "images": float(self.images),
            "pixels": float(self.confusion.sum()),
            "classes": float((~iou.isnan()).sum()),
        }


class Sums(Protocol):
    """The sums of an evaluation: merging is addition, whichever worker saw an image."""

    def merge(self, other: Any) -> None:
        """Add `other`, the sums of another worker."""

    def result(self) -> dict[str, float]:
        """Metric → value over all that was added."""


AnySums = TypeVar("AnySums", bound=Sums)


def merged(parts: Sequence[AnySums]) -> AnySums:
    """The sum of `parts`, one per worker and at least one; they are left as they were."""
    total = copy.deepcopy(parts[0])
    for part in parts[1:]:
        total.merge(part)
    return total
