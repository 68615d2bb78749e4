"""How far a model's predictions of several views of an image agree: mirrored, and at another size.

Where they do not, the model does not know: thin structures, glass, reflections. A view's prediction is
aligned with the first one's by the scale, not negative, and shift that fit best, unless the model is metric.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dpt.alignment import least_squares_scale_shift

Map = NDArray[np.float32]


def agreeing(first: Map, others: Sequence[Map], metric: bool, tolerance: float) -> NDArray[np.bool_]:
    """Where the prediction of every other view is near enough to that of the image itself.

    Args:
        first: (H, W) finite inverse depth of the image.
        others: the same of other views of it, turned back to the image's pixels.
        metric: whether their unit is known; if not, they are aligned first.
        tolerance: largest difference as a share of the range of `first`, which is from its minimum (if
            metric, from 0) to its maximum: the unit of the stored map.

    Returns:
        (H, W) bool.
    """
    span = float(first.max()) - (0.0 if metric else float(first.min()))
    agrees = np.ones(first.shape, bool)
    for other in others:
        aligned = other if metric else _aligned(other, first)
        agrees &= np.abs(aligned - first) <= tolerance * span
    return agrees


def _aligned(prediction: Map, target: Map) -> NDArray[np.float64]:
    known, wanted = (torch.from_numpy(one)[None] for one in (prediction, target))
    scale, shift = least_squares_scale_shift(known, wanted, torch.ones_like(known, dtype=torch.bool))
    if scale.item() <= 0:  # near for far: the best that is no inversion is a constant
        return np.full(target.shape, target.mean(dtype=np.float64))
    return scale.item() * prediction.astype(np.float64) + shift.item()
