"""Training losses, each per image, so that the caller may average them or weight datasets.

Inverse-depth losses follow Ranftl et al., Towards Robust Monocular Depth Estimation (TPAMI 2020), section 5,
which section 4.1 of the DPT paper adopts. Maps are (B, H, W); invalid pixels may hold any value.
Losses compute in float32 (or float64, if given) whatever the autocast state: squares of large predictions
overflow in half precision.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpt.alignment import DEVIATION_FLOOR, masked, median_and_deviation
from dpt.selection import kth_smallest


class ScaleShiftInvariantLoss(nn.Module):
    """Trimmed, scale- and shift-invariant loss plus multi-scale gradient matching: L_ssitrim + α L_reg.

    Prediction and target are each brought to median 0 and mean absolute deviation 1; the largest residuals of
    each image, a share of `trim`, are left out; gradients of the residual are matched at several resolutions
    (Li and Snavely 2018). This is the paper's loss; the authors' released one takes the median over all
    pixels, invalid ones as 0, and trims and averages over the whole batch.

    An image whose valid target is constant, or has fewer than two valid pixels, has no shape to match: its
    loss is 0.

    Args:
        trim: share of the residuals to leave out, in [0, 1).
        gradient_weight: α.
        gradient_scales: K, the number of resolutions, each half of the previous one.
    """

    def __init__(self, trim: float = 0.2, gradient_weight: float = 0.5, gradient_scales: int = 4):
        super().__init__()
        self.trim = trim
        self.gradient_weight = gradient_weight
        self.gradient_scales = gradient_scales

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        valid: Tensor,
        trim: Tensor | None = None,
        gradient_weight: Tensor | float | None = None,
    ) -> Tensor:
        """(B, H, W) `prediction` and `target` in inverse depth and bool mask `valid` -> (B,) losses.

        `trim`, (B,) float64, and `gradient_weight`, (B,) or one for all, take the place of the loss's own.
        """
        weight = self.gradient_weight if gradient_weight is None else gradient_weight
        with torch.autocast(prediction.device.type, enabled=False):
            prediction, _ = _normalised(_full_precision(prediction), valid)
            target, deviation = _normalised(_full_precision(target), valid)
            residual = masked(prediction - target, valid & (deviation > 0)[:, None, None])
            loss = _trimmed(residual, valid, self.trim if trim is None else trim)
            if isinstance(weight, Tensor) or weight:
                loss = loss + weight * gradient_matching(residual, valid, self.gradient_scales)
            return loss


def of_both_parts(
    criterion: Callable[..., Tensor],
    box: Tensor,
    prediction: Tensor,
    target: Tensor,
    valid: Tensor,
    *of_image: Tensor | float,
) -> Tensor:
    """Losses of images that have a rectangle of another image (CutMix): of both parts, each by itself.

    ΣM/HW · loss over M + Σ(1 − M)/HW · loss over 1 − M (Depth Anything, section 3.2), M being the rectangle.
    Each part is brought to median 0 and deviation 1 on its own: two images' labels differ in scale and shift.

    Args:
        criterion: as `ScaleShiftInvariantLoss.forward`.
        box: (B, 4) int64 on the CPU, top, left, bottom and right of the rectangles, zeros without one.
        prediction: (B, H, W).
        target: (B, H, W).
        valid: (B, H, W) bool.
        of_image: further arguments of the criterion, (B,) each, or one number for all.

    Returns:
        (B,) losses; of an image without a rectangle that of the criterion.
    """
    count, height, width = prediction.shape
    mixed = torch.from_numpy(np.flatnonzero(box.numpy().any(1)))
    images = torch.cat([torch.arange(count), mixed]).to(prediction.device, non_blocking=True)
    limits = box.to(prediction.device, non_blocking=True)[images]
    top, left, bottom, right = limits[:, :, None, None].unbind(1)
    rows, columns = (torch.arange(side, device=prediction.device) for side in (height, width))
    inside = ((top <= rows[:, None]) & (rows[:, None] < bottom)) & ((left <= columns) & (columns < right))
    part = torch.cat([~inside[:count], inside[count:]])
    own = [values[images] if isinstance(values, Tensor) else values for values in of_image]
    losses = criterion(prediction[images], target[images], valid[images] & part, *own)
    shares = part.to(losses.dtype).mean(dim=(1, 2))
    return losses.new_zeros(count).index_add(0, images, shares * losses)


class SILogLoss(nn.Module):
    """Scale-invariant error in log space (Eigen et al. 2014, equation 4), for fine-tuning on metric depth.

    mean(g²) − λ mean(g)² with g = log prediction − log target; λ = 1 forgives the scale, 0 does not. Depth
    and inverse depth give the same value.

    Predictions are clamped to at least `SMALLEST` before the logarithm.

    Args:
        weight: λ.
    """

    SMALLEST = 1e-6

    def __init__(self, weight: float = 0.5):
        super().__init__()
        self.weight = weight

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """(B, H, W) `prediction`, positive `target` and bool mask `valid` -> (B,) losses."""
        with torch.autocast(prediction.device.type, enabled=False):
            prediction, target = _full_precision(prediction), _full_precision(target)
            prediction = prediction.masked_fill(~valid, 1.0).clamp(min=self.SMALLEST)
            difference = (prediction / target.masked_fill(~valid, 1.0)).log()
            count = _count(valid)
            mean = difference.sum(dim=(1, 2)) / count
            return difference.square().sum(dim=(1, 2)) / count - self.weight * mean.square()


class SegmentationLoss(nn.Module):
    """Cross-entropy, plus that of the auxiliary head with weight 0.2 (section 4.2).

    Args:
        auxiliary_weight: weight of the auxiliary head.
        ignore_index: label of unlabelled pixels, which are left out.
    """

    def __init__(self, auxiliary_weight: float = 0.2, ignore_index: int = 255):
        super().__init__()
        self.auxiliary_weight = auxiliary_weight
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, auxiliary: Tensor | None, labels: Tensor) -> Tensor:
        """(B, K, H, W) `logits`, the `auxiliary` head's or None, (B, H, W) int64 `labels` -> (B,) losses."""
        loss = self._cross_entropy(logits, labels)
        if auxiliary is not None:
            loss = loss + self.auxiliary_weight * self._cross_entropy(auxiliary, labels)
        return loss

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits, ignored = _full_precision(logits), self.ignore_index
        loss = F.cross_entropy(logits, labels, ignore_index=ignored, reduction="none")
        return loss.sum(dim=(1, 2)) / _count(labels != self.ignore_index)


def gradient_matching(residual: Tensor, valid: Tensor, scales: int = 4) -> Tensor:
    """Mean absolute difference of neighbouring residuals, summed over `scales` resolutions: L_reg.

    Only pairs of two valid pixels count. Each resolution keeps every second row and column of the previous
    one and is divided by its own number of valid pixels: a step edge costs about twice as much at half the
    resolution, so coarse shape counts more than texture.

    Args:
        residual: (B, H, W), aligned prediction minus aligned target.
        valid: (B, H, W) bool.
        scales: K, the number of resolutions.

    Returns:
        (B,) losses.
    """
    total = residual.new_zeros(len(residual))
    for scale in range(scales):
        step = 2**scale
        coarse, known = residual[:, ::step, ::step], valid[:, ::step, ::step]
        count = _count(known)
        for difference, pair in _neighbours(coarse, known):
            total = total + masked(difference, pair).abs().sum(dim=(1, 2)) / count
    return total


def _neighbours(values: Tensor, valid: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield values[:, 1:] - values[:, :-1], valid[:, 1:] & valid[:, :-1]
    yield values[:, :, 1:] - values[:, :, :-1], valid[:, :, 1:] & valid[:, :, :-1]


def _normalised(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Valid pixels with median 0 and mean absolute deviation 1, and the (B,) deviation before."""
    values = masked(values, valid)
    median = median_and_deviation(values, valid)[0][:, None, None]
    values = masked(values - median, valid)
    deviation = values.abs().sum(dim=(1, 2)) / _count(valid)
    return values / deviation.clamp(min=DEVIATION_FLOOR)[:, None, None], deviation


def _trimmed(residual: Tensor, valid: Tensor, trim: Tensor | float) -> Tensor:
    """Half the sum of each image's smallest residuals, divided by its number of valid pixels: (B,)."""
    kept = (valid.sum(dim=(1, 2)).double() * (1 - trim)).floor().long()
    return _sum_of_smallest(residual.flatten(1).abs(), valid.flatten(1), kept) / (2 * _count(valid))


def _sum_of_smallest(values: Tensor, valid: Tensor, kept: Tensor) -> Tensor:
    """Sum of the `kept` (B,) smallest valid values of each row of (B, N), ties counted one by one.

    With the kept-th smallest value as threshold: 1 2 2 2 5, kept 3 → threshold 2, 1 below it, 2 ties of it.
    """
    threshold = kth_smallest(values.masked_fill(~valid, torch.nan), kept)
    threshold = torch.where(kept > 0, threshold, 0.0)[:, None]
    # not "values < threshold": a NaN must reach the loss, not hide among the trimmed
    below = valid & ~(values >= threshold)
    ties = (kept - below.sum(dim=1)).clamp(min=0)
    return masked(values, below).sum(dim=1) + ties * threshold[:, 0]


def _count(valid: Tensor) -> Tensor:
    return valid.sum(dim=(1, 2)).clamp(min=1)


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
