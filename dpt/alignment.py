"""Per-image alignment of predictions that are known up to scale and shift.

Ranftl et al., Towards Robust Monocular Depth Estimation (TPAMI 2020), section 5; DPT paper, section 4.1. All
functions take (B, H, W) maps and are differentiable; invalid pixels may hold any value, NaN included.
"""

import torch
from torch import Tensor

from dpt.selection import lower_median

DEVIATION_FLOOR = 1e-6
"""Lower bound of mean absolute deviations, as in the authors' released loss."""


def least_squares_scale_shift(prediction: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Scale s and shift t that minimise Σ (s · prediction + t − target)² over the valid pixels of each image.

    Computed in closed form from centred sums in float64, so that predictions in the thousands or with a small
    variation around a large mean lose nothing.

    Args:
        prediction: (B, H, W), any floating dtype.
        target: (B, H, W), any floating dtype.
        valid: (B, H, W) bool.

    Returns:
        (B,) scale and (B,) shift in float64. Where the valid predictions are constant (to 1e-12 of their
        size; a single pixel always is) they are undetermined, and both are 0. So they are in the released
        evaluation, which leaves a singular system unsolved: a dead network predicts the cap, not the mean of
        the target. Without any valid pixel both are 0, too.
    """
    prediction, target = (masked(values.double(), valid) for values in (prediction, target))
    count = valid.sum(dim=(1, 2)).clamp(min=1)
    mean_prediction = prediction.sum(dim=(1, 2)) / count
    mean_target = target.sum(dim=(1, 2)) / count
    # s = cov(p, t) / var(p). Centring first avoids Σp² − (Σp)²/n, which cancels: for p = 10⁸, 10⁸ + 1 both
    # terms are 2 · 10¹⁶, where float64 has steps of 4, and their difference is 1/2.
    centred = masked(prediction - mean_prediction[:, None, None], valid)
    variance = centred.square().sum(dim=(1, 2))
    # torch.where alone would let 0/0 into the gradient of the branch that is not taken
    constant = variance <= count * (1e-12 * prediction.detach().abs().amax(dim=(1, 2))).square()
    covariance = (centred * target).sum(dim=(1, 2))
    scale = torch.where(constant, 0.0, covariance / torch.where(constant, 1.0, variance))
    return scale, torch.where(constant, 0.0, mean_target - scale * mean_prediction)


def robust_scale_shift(prediction: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift that give the prediction the median and mean absolute deviation of the target.

    Parameters and result are as `least_squares_scale_shift` has them. A prediction that is constant, up to
    its own rounding, gets scale 0, and the shift is then the median target.
    """
    shift_prediction, scale_prediction = median_and_deviation(prediction.double(), valid)
    shift_target, scale_target = median_and_deviation(target.double(), valid)
    # A constant map that was resized differs from itself in its last bits.
    constant = scale_prediction <= 4 * torch.finfo(prediction.dtype).eps * shift_prediction.abs()
    scale = torch.where(constant, 0.0, scale_target / torch.where(constant, 1.0, scale_prediction))
    return scale, shift_target - scale * shift_prediction


def median_and_deviation(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Median t(d) and mean absolute deviation s(d) of each image, both (B,); 0 without valid pixels.

    `values` and the bool mask `valid` are (B, H, W). Of an even number of values the median is the lower
    middle one, as in the released loss.
    """
    count = valid.sum(dim=(1, 2)).clamp(min=1)
    median = lower_median(values.masked_fill(~valid, torch.nan).flatten(1))
    median = torch.where(valid.any(dim=2).any(dim=1), median, 0.0)
    deviation = masked(values - median[:, None, None], valid).abs().sum(dim=(1, 2)) / count
    return median, deviation


def masked(values: Tensor, valid: Tensor) -> Tensor:
    """`values` where `valid`, else 0; neither NaN nor gradients pass elsewhere. Both have one shape."""
    return values.masked_fill(~valid, 0.0)
