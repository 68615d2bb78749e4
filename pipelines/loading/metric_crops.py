"""Training crops of metric depth: what BTS (Lee et al. 2019) does to the images of KITTI and NYUv2.

A crop of the used part of an image is rotated by a small angle and mirrored, and half of the crops have their
colours jittered by a gamma, a brightness and a factor per channel. Position, rotation and mirroring are one
affine map, so that only the pixels of the crop are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dpt.regions import kb_window
from pipelines.config import MetricDepthSection
from pipelines.loading.crops import Crops, RandomNumbers, crop_and_flip, crop_start
from pipelines.loading.rows import BadRow, Image, Row, decode_row

_TOP, _LEFT, _FLIP, _ANGLE, _COLOURED, _GAMMA, _BRIGHTNESS, _CHANNELS = range(8)
_INVALID = int(np.float16(np.nan).view(np.int16))


@dataclass(frozen=True, slots=True)
class MetricDepthCrops(Crops):
    """Random crops with depth in metres, NaN where unknown; so is the sky, which has no depth.

    The random numbers are top, left, flip, angle, whether to jitter colours, and five for the colours.

    Attributes:
        settings: of the augmentation; the other fields as in `Crops`.
    """

    settings: MetricDepthSection
    target_dtype = np.dtype(np.float32)
    draws = 10

    def __call__(self, row: Row, draws: RandomNumbers, image_out: Image, target_out: NDArray[Any]) -> None:
        """See `Crops`."""
        if row["scale"] is None:
            raise BadRow(f"sample {row['sample_id']}: its depth has no metric scale")
        image, inverse_depth = decode_row(row)
        window = training_window(self.settings, *inverse_depth.shape)
        inverse_out = np.empty(self.size, np.float16)
        angle = self.settings.rotation * (2 * draws[_ANGLE] - 1)
        if angle:
            mirror = self.flip and bool(draws[_FLIP] < 0.5)
            turned_crop(image[window], inverse_depth[window], draws, angle, mirror, image_out, inverse_out)
        else:
            crop_and_flip(image[window], inverse_depth[window], draws, self.flip, image_out, inverse_out)
        if draws[_COLOURED] < self.settings.coloured:
            change_colours(image_out, self.settings, draws[_GAMMA:])
        target_out[...] = metres(inverse_out, row["scale"])


def training_window(settings: MetricDepthSection, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a `height` × `width` image that training uses: the KB crop or border of `settings`.

    Raises:
        ValueError: if the border leaves nothing of the image.
    """
    if settings.kb_crop:
        return kb_window(height, width)
    if settings.border is None:
        return slice(0, height), slice(0, width)
    top, left, bottom, right = settings.border
    if top >= height or left >= width:
        raise ValueError(f"border {settings.border} leaves nothing of an image of {width}x{height}")
    return slice(top, min(bottom, height)), slice(left, min(right, width))


def metres(inverse_depth: NDArray[np.floating], scale: float) -> NDArray[np.float32]:
    """Depth in metres of stored `inverse_depth` (any shape) in units of `scale`/m; NaN if unknown or sky."""
    inverse = inverse_depth.astype(np.float32) * np.float32(scale)
    depth = np.full(inverse.shape, np.nan, np.float32)
    return np.divide(1, inverse, out=depth, where=inverse > 0)


def turned_crop(
    image: Image,
    inverse_depth: NDArray[np.float16],
    draws: RandomNumbers,
    angle: float,
    mirror: bool,
    image_out: Image,
    inverse_depth_out: NDArray[np.float16],
) -> None:
    """A crop of the image rotated about its centre; pixels from outside the image are black and invalid.

    Args:
        image: (H, W, 3); interpolated bilinearly.
        inverse_depth: (H, W); the nearest value is taken, as interpolation would invent depths at edges.
        draws: two numbers in [0, 1): vertical and horizontal position.
        angle: in degrees, counterclockwise.
        mirror: whether to mirror the crop.
        image_out: (h, w, 3), contiguous; written to.
        inverse_depth_out: (h, w), contiguous; written to.
    """
    (rows, columns), (height, width) = inverse_depth.shape, inverse_depth_out.shape
    top, left = crop_start(draws[_TOP], rows, height), crop_start(draws[_LEFT], columns, width)
    # From a crop's pixel to the image's, (x, y, 1) → (x, y): `place` shifts by (left, top), or maps x to
    # left + width − 1 − x to mirror; `turn` then undoes the rotation of the image about its centre.
    turn = cv2.invertAffineTransform(cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), angle, 1.0))
    place = np.array(
        [[-1.0 if mirror else 1.0, 0, left + (width - 1 if mirror else 0)], [0, 1, top], [0, 0, 1]]
    )
    back = turn @ place
    flags = cv2.WARP_INVERSE_MAP
    cv2.warpAffine(image, back, (width, height), dst=image_out, flags=flags | cv2.INTER_LINEAR)
    # OpenCV has no float16, but moves it as 16-bit integers.
    cv2.warpAffine(
        inverse_depth.view(np.int16), back, (width, height), dst=inverse_depth_out.view(np.int16),
        flags=flags | cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=_INVALID,
    )  # fmt: skip


def change_colours(image: Image, settings: MetricDepthSection, draws: RandomNumbers) -> None:
    """Jitter gamma, brightness and channel strengths of `image` (h, w, 3) in place, by ranges in `settings`.

    This takes a table of 256 levels per channel. `draws` are five numbers in [0, 1): gamma, brightness, red,
    green, blue.
    """
    gamma, brightness = _between(settings.gamma, draws[0]), _between(settings.brightness, draws[1])
    factors = brightness * _between(settings.colour, draws[2:5])
    curve = (np.arange(256)[:, None] / 255) ** gamma * factors
    table = np.rint(255 * np.clip(curve, 0, 1)).astype(np.uint8)
    cv2.LUT(image, table[None], dst=image)


def _between(limits: tuple[float, float], draw: Any) -> Any:
    return limits[0] + (limits[1] - limits[0]) * draw
