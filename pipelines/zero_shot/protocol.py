"""The zero-shot protocol for one image: the network's input, and the metrics of its prediction.

Ranftl et al., TPAMI 2020, section 6 (adopted in section 4.1 of the DPT paper): the prediction, resized
bilinearly to the ground truth, which keeps its own resolution, is aligned to it in inverse depth by least
squares on the valid pixels nearer than the cap; floored at the inverse of the cap, it is inverted and
compared as depth. On DIW, where only the order of two points is known, predicted inverse depth is compared
without alignment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from datasets_prep.errors import BadSample
from datasets_prep.formats.pictures import check_aspect, decode_rgb
from datasets_prep.sources.base import RawLabels, RawPointPair, RawSample
from dpt.metrics import aligned_depth, metric_depth_metrics, whdr
from dpt.predict.transforms import network_size, resize_image

DEPTH_METRICS = (
    *("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog"),
    *(f"delta{power}{suffix}" for power in (1, 2, 3) for suffix in ("", "_error")),
)
METRICS = ("whdr", *DEPTH_METRICS)
"""All metrics of an image; those that do not apply to its ground truth are NaN."""


InputSize = tuple[int, str, int]
"""Side, rule and divisor of the network's input (`transforms.network_size`)."""


@dataclass(frozen=True, slots=True)
class EvaluationImage:
    """A preprocessed image and its ground truth.

    Attributes:
        pixels: (h, w, 3) float32 RGB in [0, 1], but for the overshoot of resampling.
        image: (H, W, 3) uint8 RGB, as decoded.
        depth: (H, W) float32 metres, NaN where invalid; None for a pair of points.
        points: row and column of A, row and column of B; None for depth.
        a_is_farther: True if A is farther than B; of points only.
    """

    pixels: NDArray[np.float32]
    image: NDArray[np.uint8]
    depth: NDArray[np.float32] | None
    points: tuple[int, int, int, int] | None = None
    a_is_farther: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of one image.

    Attributes:
        metrics: those of `METRICS` that apply; NaN without pixels.
        pixels: number of compared pixels (1 for a pair of points).
        scale, shift: of the alignment, the shift in 1/m; NaN without alignment.
    """

    metrics: dict[str, float]
    pixels: int
    scale: float = math.nan
    shift: float = math.nan


def prepare(raw: RawSample | RawLabels | RawPointPair, size: InputSize, border: int) -> EvaluationImage:
    """Decode and resize to the network's input `size` a `raw` sample with depth or a pair of points.

    The ground truth keeps its resolution, and is ignored in `border` pixels at each side.

    Raises:
        BadSample: with the reason: damaged, of different sizes, empty, or a strip.
    """
    image = decode_rgb(raw.image)
    height, width = image.shape[:2]
    check_aspect(height, width)
    pixels = resize_image(image, *network_size(height, width, *size))
    if isinstance(raw, RawPointPair):
        for name, y, x in (("A", raw.y_a, raw.x_a), ("B", raw.y_b, raw.x_b)):
            if not (0 <= y < height and 0 <= x < width):
                raise BadSample(
                    f"point {name} at row {y}, column {x} is outside the image of {width}x{height}"
                )
        points = (raw.y_a, raw.x_a, raw.y_b, raw.x_b)
        return EvaluationImage(pixels, image, None, points, bool(raw.a_is_farther))
    if isinstance(raw, RawLabels) or raw.quantity != "depth":
        raise BadSample("the ground truth is not depth")
    if raw.valid.shape != (height, width):
        rows, columns = raw.valid.shape
        raise BadSample(f"size mismatch: image is {width}x{height}, ground truth is {columns}x{rows}")
    depth = np.where(raw.valid, raw.target, np.float32(np.nan))
    if border:
        inside = depth[border:-border, border:-border].copy()
        depth[:] = np.nan
        depth[border:-border, border:-border] = inside
    if np.isnan(depth).all():
        raise BadSample("ground truth is empty: no pixel is valid")
    return EvaluationImage(pixels, image, depth)


def measure_depth(prediction: Tensor, depth: NDArray[np.float32], cap: float) -> Measured:
    """Metrics of a `prediction` (h, w), finite inverse depth, after alignment by scale and shift to `depth`.

    Depth is (H, W) float32 metres, NaN where invalid; only ground truth nearer than `cap` metres is compared.
    """
    truth = torch.from_numpy(np.array(depth)).to(prediction.device)
    counted = ((truth > 0) & (truth < cap)).flatten().nonzero().squeeze(1)
    pixels = len(counted)
    if pixels == 0:
        return Measured(dict.fromkeys(DEPTH_METRICS, math.nan), 0)
    # Only compared pixels are kept from here: on KITTI a fifth.
    predicted = at_size(prediction, depth.shape).flatten()[counted][None, None]
    target = truth.flatten()[counted].double()[None, None]
    valid = torch.ones_like(target, dtype=torch.bool)
    limit = target.new_full((1,), cap)
    aligned, scale, shift = aligned_depth(predicted, 1 / target, valid, limit)
    found = metric_depth_metrics(aligned, target, valid)
    metrics = {name: float(found[name]) for name in DEPTH_METRICS}
    return Measured(metrics, pixels, float(scale), float(shift))


def measure_order(
    prediction: Tensor, points: tuple[int, int, int, int], a_is_farther: bool, size: tuple[int, int]
) -> Measured:
    """WHDR of the pair of `points` (row and column of A, row and column of B) in an image of `size` (H, W).

    `prediction` is (h, w) inverse depth; `a_is_farther` is the annotated order.
    """
    y_a, x_a, y_b, x_b = points
    first, second = (torch.tensor([[place]], device=prediction.device) for place in ((y_a, x_a), (y_b, x_b)))
    relation = torch.tensor([[-1 if a_is_farther else 1]], device=prediction.device)
    return Measured({"whdr": float(whdr(at_size(prediction, size)[None], first, second, relation))}, 1)


def at_size(prediction: Tensor, size: tuple[int, ...]) -> Tensor:
    """A `prediction` (h, w) → float64 at `size` (H, W), bilinearly, as in the authors' evaluation."""
    exact = prediction.double()[None, None]
    return F.interpolate(exact, size=size, mode="bilinear", align_corners=False)[0, 0]
