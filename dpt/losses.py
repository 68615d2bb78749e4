"""Training losses, each per image, so that the caller may average them or weight datasets.

Inverse-depth losses follow Ranftl et al., Towards Robust Monocular Depth Estimation (TPAMI 2020), section 5,
which section 4.1 of the DPT paper adopts. Maps are (B, H, W); what invalid pixels hold never matters.
Losses compute in float32 (or float64, if given) whatever the autocast state: squares of large predictions
overflow in half precision.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpt.alignment import DEVIATION_FLOOR, least_squares_scale_shift, masked, median_and_deviation


class ScaleShiftInvariantLoss(nn.Module):
    """Trimmed, scale- and shift-invariant loss plus multi-scale gradient matching: L_ssitrim + α L_reg.

    Prediction and target are each brought to median 0 and mean absolute deviation 1; the
    largest residuals of each image, a share of `trim`, do not count; gradients of the residual
    are matched at several resolutions (Li and Snavely 2018).

    An image whose valid target is constant, or has fewer than two valid pixels, has no shape to match: its
    loss is 0.

    Args:
        trim: share of the largest residuals to leave out.
        gradient_weight: α.
        gradient_scales: K, the number of resolutions, each half of the one before.
        released: as the authors' released loss computes it, which differs from the paper: the median is taken
            over all pixels with invalid ones as 0, residuals are trimmed over the whole batch, and images
            weigh by their number of valid pixels. The mean of the returned values is then the released
            number.
    """

    def __init__(
        self,
        trim: float = 0.2,
        gradient_weight: float = 0.5,
        gradient_scales: int = 4,
        released: bool = False,
    ):
        super().__init__()
        self.trim = trim
        self.gradient_weight = gradient_weight
        self.gradient_scales = gradient_scales
        self.released = released

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """(B, H, W) inverse depth twice and a bool mask -> (B,) losses."""
        with torch.autocast(prediction.device.type, enabled=False):
            prediction, target = _full_precision(prediction), _full_precision(target)
            measured = torch.ones_like(valid) if self.released else valid
            prediction, _ = _normalised(prediction, valid, measured)
            target, deviation = _normalised(target, valid, measured)
            residual = masked(prediction - target, valid)
            if not self.released:
                residual = masked(residual, (deviation > 0)[:, None, None].expand_as(valid))
            rank = _over_batch if self.released else _over_images
            loss = rank(residual, valid, self.trim)
            if self.gradient_weight:
                matching = gradient_matching(residual, valid, self.gradient_scales, self.released)
                loss = loss + self.gradient_weight * matching
            return loss


class ScaleShiftInvariantMSELoss(nn.Module):
    """Squared residual after least-squares alignment, halved, plus gradient matching: L_ssimse + α L_reg.

    Unlike the trimmed loss it is not invariant to the scale of the target.
    """

    def __init__(self, gradient_weight: float = 0.5, gradient_scales: int = 4):
        super().__init__()
        self.gradient_weight = gradient_weight
        self.gradient_scales = gradient_scales

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """(B, H, W) inverse depth twice and a bool mask -> (B,) losses."""
        with torch.autocast(prediction.device.type, enabled=False):
            prediction, target = _full_precision(prediction), _full_precision(target)
            scale, shift = least_squares_scale_shift(prediction, target, valid)
            aligned = (
                scale.to(prediction)[:, None, None] * masked(prediction, valid)
                + shift.to(prediction)[:, None, None]
            )
            residual = masked(aligned - target, valid)
            loss = residual.square().sum(dim=(1, 2)) / (2 * _count(valid))
            if self.gradient_weight:
                loss = loss + self.gradient_weight * gradient_matching(residual, valid, self.gradient_scales)
            return loss


class SILogLoss(nn.Module):
    """Scale-invariant error in log space (Eigen et al. 2014, equation 4), for fine-tuning on metric depth.

    mean(g²) − λ mean(g)² with g = log prediction − log target; λ = 1 forgives the scale, 0 does not. Depth
    and inverse depth give the same value.

    Args:
        weight: λ.
        minimum: predictions are held above this before the logarithm.
    """

    def __init__(self, weight: float = 0.5, minimum: float = 1e-6):
        super().__init__()
        self.weight = weight
        self.minimum = minimum

    def forward(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """(B, H, W) prediction, positive target and a bool mask -> (B,) losses."""
        with torch.autocast(prediction.device.type, enabled=False):
            prediction, target = _full_precision(prediction), _full_precision(target)
            ratio = prediction.masked_fill(~valid, 1.0).clamp(min=self.minimum) / target.masked_fill(
                ~valid, 1.0
            )
            difference = ratio.log()
            count = _count(valid)
            mean = difference.sum(dim=(1, 2)) / count
            return difference.square().sum(dim=(1, 2)) / count - self.weight * mean.square()


class SegmentationLoss(nn.Module):
    """Cross-entropy, plus that of the auxiliary head with weight 0.2 (section 4.2).

    Args:
        auxiliary_weight: weight of the auxiliary head.
        ignore_index: label of pixels that do not count.
    """

    def __init__(self, auxiliary_weight: float = 0.2, ignore_index: int = 255):
        super().__init__()
        self.auxiliary_weight = auxiliary_weight
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, auxiliary: Tensor | None, labels: Tensor) -> Tensor:
        """(B, K, H, W) logits, the auxiliary head's or None, (B, H, W) int64 labels -> (B,) losses."""
        loss = self._cross_entropy(logits, labels)
        if auxiliary is not None:
            loss = loss + self.auxiliary_weight * self._cross_entropy(auxiliary, labels)
        return loss

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(
            _full_precision(logits), labels, ignore_index=self.ignore_index, reduction="none"
        )
        return loss.sum(dim=(1, 2)) / _count(labels != self.ignore_index)


def gradient_matching(residual: Tensor, valid: Tensor, scales: int = 4, released: bool = False) -> Tensor:
    """Mean absolute difference of neighbouring residuals, summed over `scales` resolutions; (B,).

    Only pairs of two valid pixels count; a coarser resolution keeps every second row and
    column of the one before; each is divided by its own number of valid pixels (with `released` by the mean
    number in the batch).
    """
    total = residual.new_zeros(len(residual))
    for scale in range(scales):
        step = 2**scale
        coarse, known = residual[:, ::step, ::step], valid[:, ::step, ::step]
        count = _mean_count(known) if released else _count(known)
        for difference, pair in _neighbours(coarse, known):
            total = total + masked(difference, pair).abs().sum(dim=(1, 2)) / count
    return total


def _neighbours(values: Tensor, valid: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield values[:, 1:] - values[:, :-1], valid[:, 1:] & valid[:, :-1]
    yield values[:, :, 1:] - values[:, :, :-1], valid[:, :, 1:] & valid[:, :, :-1]


def _normalised(values: Tensor, valid: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
    """Valid pixels with median 0 and mean absolute deviation 1, and that deviation before.

    The median is over `measured`, which is `valid` except in the released loss.
    """
    values = masked(values, valid)
    median = median_and_deviation(values, measured)[0][:, None, None]
    values = masked(values - median, valid)
    deviation = values.abs().sum(dim=(1, 2)) / _count(valid)
    return values / deviation.clamp(min=DEVIATION_FLOOR)[:, None, None], deviation


def _over_images(residual: Tensor, valid: Tensor, trim: float) -> Tensor:
    """Half the sum of each image's smallest residuals, by its number of valid pixels."""
    kept = (valid.sum(dim=(1, 2)).double() * (1 - trim)).floor().long()
    return _sum_of_smallest(residual.flatten(1).abs(), valid.flatten(1), kept) / (2 * _count(valid))


def _over_batch(residual: Tensor, valid: Tensor, trim: float) -> Tensor:
    """As released: the smallest residuals of the whole batch, by the mean number of valid pixels."""
    kept = (valid.sum().double() * (1 - trim)).floor().long()
    sizes = residual.abs()
    threshold = _kth_smallest(sizes.reshape(1, -1), valid.reshape(1, -1), kept.reshape(1))
    below = valid & ~(sizes > threshold)
    return masked(sizes, below).sum(dim=(1, 2)) / (2 * _mean_count(valid))


def _sum_of_smallest(values: Tensor, valid: Tensor, kept: Tensor) -> Tensor:
    """Sum of the `kept` (B,) smallest valid values of each row of (B, N), ties counted one by one."""
    threshold = _kth_smallest(values, valid, kept)[:, None]
    # not "values < threshold": a NaN must reach the loss, not hide among the trimmed
    below = valid & ~(values >= threshold)
    ties = (kept - below.sum(dim=1)).clamp(min=0)
    return masked(values, below).sum(dim=1) + ties * threshold[:, 0]


def _kth_smallest(values: Tensor, valid: Tensor, k: Tensor) -> Tensor:
    """The k-th smallest valid value of each row of (B, N), 1 ≤ k; 0 where k is 0.

    nanmedian is the only selection in linear time that skips entries row by row. Of n values and e times +∞
    the lower median is the k-th smallest value if e = 2k − n, and with e times −∞ if e = n − 2k.
    """
    count = valid.sum(dim=1)
    extra = 2 * k - count
    padding = torch.arange(values.shape[1], device=values.device) < extra.abs()[:, None]
    infinity = torch.where(extra > 0, torch.inf, -torch.inf).to(values)[:, None]
    padding = torch.where(padding, infinity, torch.nan)
    selected = torch.cat([values.masked_fill(~valid, torch.nan), padding], dim=1).nanmedian(dim=1).values
    return torch.where(k > 0, selected, 0.0)


def _count(valid: Tensor) -> Tensor:
    return valid.sum(dim=(1, 2)).clamp(min=1)


def _mean_count(valid: Tensor) -> Tensor:
    return valid.sum().clamp(min=1).double() / len(valid)


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
