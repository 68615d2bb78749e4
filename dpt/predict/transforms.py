"""From an image to the network's input: size, resampling, normalisation (as in the released models)."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from dpt.config import RESIZE_RULES


def network_size(
    height: int,
    width: int,
    target: int | tuple[int, int] = 384,
    rule: str = "minimal",
    divisor: int = 32,
) -> tuple[int, int]:
    """Size of an image in the network, with its aspect ratio kept up to rounding to `divisor`.

    480 × 640 with target 384: factors 0.8 and 0.6, of which 0.8 is nearer to 1, so 384 × 512. 375 × 1242 with
    target (1216, 352): factors 0.94 and 0.98, so 352 × 1216 (367 is rounded to 352).

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        target: what the network was trained on: side length of a square, or width and height.
        rule: ``"minimal"`` scales by the factor for height or width that changes the image least;
            ``"lower_bound"`` makes both sides at least those of `target`, ``"upper_bound"`` at most.
        divisor: both sides are rounded to multiples of this.

    Returns:
        (height, width), each at least `divisor`.

    Raises:
        ValueError: for an unknown rule or an empty image.
    """
    if min(height, width) < 1:
        raise ValueError(f"image of {height} by {width} pixels")
    wide, high = (target, target) if isinstance(target, int) else target
    factors = high / height, wide / width
    if rule == "minimal":
        factor = min(factors, key=lambda factor: abs(1 - factor))
    elif rule in RESIZE_RULES:
        factor = max(factors) if rule == "lower_bound" else min(factors)
    else:
        raise ValueError(f"rule: there is no {rule!r}; choose from {', '.join(RESIZE_RULES)}")
    return _multiple(factor * height, high, rule, divisor), _multiple(factor * width, wide, rule, divisor)


def _multiple(length: float, target: int, rule: str, divisor: int) -> int:
    multiples = round(length / divisor)  # halves to even, as numpy rounds in the released code
    if rule == "lower_bound" and multiples * divisor < target:
        multiples = math.ceil(length / divisor)
    if rule == "upper_bound" and multiples * divisor > target:
        multiples = math.floor(length / divisor)
    return max(multiples, 1) * divisor


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resample an RGB image bicubically, as released: in floating point and without antialiasing.

    Args:
        image: (H, W, 3) uint8 RGB.
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        (height, width, 3) float32 in [0, 1], up to the overshoot of bicubic interpolation.
    """
    pixels = image.astype(np.float32) / 255
    if image.shape[:2] == (height, width):
        return pixels
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale to zero mean and unit variance, channels first.

    Args:
        images: (B, H, W, 3) or (B, 3, H, W); uint8, or floating point in [0, 1].
        mean: of RGB in [0, 1].
        std: of RGB in [0, 1].

    Returns:
        (B, 3, H, W) float32.

    Raises:
        ValueError: if neither the second nor the last dimension is 3.
    """
    if images.ndim != 4 or 3 not in (images.shape[1], images.shape[3]):
        raise ValueError(f"images must be (B, H, W, 3) or (B, 3, H, W), not {tuple(images.shape)}")
    if images.shape[1] != 3:
        images = images.permute(0, 3, 1, 2)
    unit = 255.0 if images.dtype == torch.uint8 else 1.0
    # Made on the device, they would be copied there at once, and the host would wait for all that runs.
    constants = (torch.tensor([mean, std]) * unit).to(images.device, non_blocking=True)
    offset, divisor = constants.view(2, 3, 1, 1)
    return (images.float() - offset) / divisor
