"""Evaluation metrics: one value an image, and sums that can be merged in any order.

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

    Counted are valid pixels nearer than the cap. On them scale and shift are fitted by least squares; the
    aligned inverse depth is floored at 1 / cap and inverted.

    Args:
        prediction: (B, H, W) inverse depth up to scale and shift.
        target_inverse_depth: (B, H, W), e.g. in 1/m.
        valid: (B, H, W) bool.
        depth_cap: in the inverse of the target's unit, e.g. m; one number or (B,).

    Returns:
        As `metric_depth_metrics`.
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
        valid: (B, H, W) bool; on these pixels scale and shift are fitted by least squares.
        depth_cap: (B,) float64; the aligned inverse depth is floored at its inverse.

    Returns:
        (B, H, W) depth, at most the cap, and (B,) scale and shift; all float64.
    """
    scale, shift = least_squares_scale_shift(prediction, target_inverse_depth, valid)
    aligned = scale[:, None, None] * prediction.double() + shift[:, None, None]
    return 1 / aligned.maximum((1 / depth_cap)[:, None, None]), scale, shift


def metric_depth_metrics(prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Metrics of positive depth maps as they are, e.g. for the models fine-tuned on KITTI and NYUv2.

    Args:
        prediction, target: (B, H, W) depth, positive where valid.
        valid: (B, H, W) bool.

    Returns:
        (B,) float64 tensors. ``pixels``: the number of pixels counted; an image without any has NaN
        elsewhere. ``abs_rel``, ``sq_rel``, ``rmse``, ``rmse_log``, ``log10``, ``silog`` (100 times the
        standard deviation of the log ratio, as KITTI reports it), ``delta1`` to ``delta3``: share of pixels
        with max(p/t, t/p) < 1.25ᵏ, and ``delta1_error`` to ``delta3_error``, their complements, which Table
        1 reports.
    """
    # Where both are 1, no difference and no ratio adds anything to a sum over all pixels.
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


def whdr(
    prediction: Tensor, first: Tensor, second: Tensor, relation: Tensor, equal_ratio: float = 0.0
) -> Tensor:
    """Weighted human disagreement rate: share of point pairs whose predicted order is not the annotated one.

    Chen et al., Single-Image Depth Perception in the Wild (2016); needs no alignment. With equal weights, as
    on DIW, where there is one pair an image and no pair is equal.

    Args:
        prediction: (B, H, W) inverse depth (large is near).
        first, second: (B, P, 2) int64 pixel positions (row, column).
        relation: (B, P) int64: 1 if the first point is nearer, -1 if the second is, 0 if they are equally
            far.
        equal_ratio: predictions whose ratio is at most 1 + this count as equally far.

    Returns:
        (B,) float64 share in [0, 1].
    """
    rows = torch.arange(len(prediction), device=prediction.device)[:, None]
    a, b = (prediction[rows, points[..., 0], points[..., 1]].double() for points in (first, second))
    nearer, farther = torch.maximum(a, b), torch.minimum(a, b)
    order = torch.where(nearer > (1 + equal_ratio) * farther, torch.sign(a - b), 0.0)
    return (order != relation).double().mean(dim=1)


@dataclass
class MetricSums:
    """Running sums of per-image metrics; merging is addition, so batching and workers do not matter.

    Images on which nothing could be counted (``pixels`` of 0) are kept apart in `empty_images`: they are in
    no average, and `result` says how many there were.
    """

    sums: dict[str, float] = field(default_factory=dict)
    images: int = 0
    empty_images: int = 0

    def update(self, metrics: Mapping[str, Tensor]) -> None:
        """Add the images of one batch: (B,) tensors, the same keys every time, ``pixels`` optional."""
        values = {key: value.detach().double().cpu() for key, value in metrics.items()}
        count = len(next(iter(values.values())))
        counted = values.pop("pixels", torch.ones(count)) > 0
        self._add({key: float(value[counted].sum()) for key, value in values.items()})
        self.images += int(counted.sum())
        self.empty_images += count - int(counted.sum())

    def merge(self, other: "MetricSums") -> None:
        """Add the images of another worker."""
        self._add(other.sums)
        self.images += other.images
        self.empty_images += other.empty_images

    def result(self) -> dict[str, float]:
        """Mean over images of every metric (NaN without any), with ``images`` and ``empty_images``."""
        means = {
            key: value / self.images if self.images else float("nan") for key, value in self.sums.items()
        }
        return {**means, "images": float(self.images), "empty_images": float(self.empty_images)}

    def state(self) -> dict[str, float]:
        """Plain floats that may be added across workers, e.g. by an all-reduce, and given to `from_state`."""
        return {**self.sums, "images": float(self.images), "empty_images": float(self.empty_images)}

    @classmethod
    def from_state(cls, state: Mapping[str, float]) -> "MetricSums":
        """Inverse of `state`."""
        sums = {key: value for key, value in state.items() if key not in ("images", "empty_images")}
        return cls(sums, round(state["images"]), round(state["empty_images"]))

    def _add(self, sums: Mapping[str, float]) -> None:
        if self.sums and sums and self.sums.keys() != sums.keys():
            raise ValueError(f"metrics differ: {sorted(self.sums)} and {sorted(sums)}")
        self.sums = {key: self.sums.get(key, 0.0) + value for key, value in sums.items()} or self.sums


class SegmentationCounts:
    """Confusion counts for pixel accuracy and mean intersection over union (section 4.2).

    They are whole numbers of pixels, so images, batches and workers may be added in any order.

    Args:
        classes: number of classes.
        ignore_index: label of pixels that do not count.

    Attributes:
        confusion: (K, K) int64: pixels with the label of a row that were predicted as a column's class.
        images: number of images that were added.
    """

    def __init__(self, classes: int, ignore_index: int = 255):
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self.images = 0
        self.ignore_index = ignore_index

    def update(self, prediction: Tensor, labels: Tensor) -> None:
        """Add (B, H, W) integer predicted classes and labels.

        Raises:
            ValueError: if the shapes differ, or there are numbers that are no class.
        """
        if prediction.shape != labels.shape:
            raise ValueError(f"predictions are {tuple(prediction.shape)}, labels {tuple(labels.shape)}")
        counted = labels != self.ignore_index
        classes = len(self.confusion)
        found, wanted = prediction[counted].long(), labels[counted].long()
        for what, values in (("label", wanted), ("predicted class", found)):
            wrong = values[(values < 0) | (values >= classes)]
            if wrong.numel():
                raise ValueError(f"{what} {int(wrong[0])} is none of {classes} classes, 0 to {classes - 1}")
        pairs = torch.bincount(classes * wanted + found, minlength=classes**2)
        self.confusion += pairs.reshape(classes, classes).cpu()
        self.images += len(labels)

    def merge(self, other: "SegmentationCounts") -> None:
        """Add the pixels of another worker."""
        self.confusion += other.confusion
        self.images += other.images

    def class_iou(self) -> Tensor:
        """(K,) float64 intersection over union; NaN for a class in neither labels nor predictions."""
        correct = self.confusion.diagonal().double()
        return correct / (self.confusion.sum(dim=0) + self.confusion.sum(dim=1) - correct)

    def result(self) -> dict[str, float]:
        """``pix_acc`` over all pixels and ``miou`` over the classes that occur in labels or predictions.

        Both are NaN where no pixel was counted. With them ``images`` and ``pixels``, and ``classes``: how
        many classes the mean is over.
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
    """What the images of an evaluation add up to: merging is addition, whoever saw them."""

    def merge(self, other: Any) -> None:
        """Add what another worker saw."""

    def result(self) -> dict[str, float]:
        """Metric → value over all that was added."""


AnySums = TypeVar("AnySums", bound=Sums)


def merged(parts: Sequence[AnySums]) -> AnySums:
    """The sums of all workers in one; at least one worker."""
    total = copy.deepcopy(parts[0])
    for part in parts[1:]:
        total.merge(part)
    return total
