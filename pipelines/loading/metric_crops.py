"""Training crops of metric depth: what BTS (Lee et al. 2019) does to the images of KITTI and NYUv2.

Of the part of an image that is used, a crop is turned by a small angle, mirrored, and half of the crops have
their colours changed by a gamma, a brightness and a factor for each channel. Position, angle and mirroring
are one affine map, so that only the pixels of the crop are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dpt.regions import kb_window
from pipelines.config import MetricDepthSection
from pipelines.loading.rows import crop_and_flip, decode_row
from pipelines.loading.shard_reader import TRAINING_COLUMNS

_TOP, _LEFT, _FLIP, _ANGLE, _COLOURED, _GAMMA, _BRIGHTNESS, _CHANNELS = range(8)
_INVALID = int(np.float16(np.nan).view(np.int16))


@dataclass(frozen=True, slots=True)
class MetricDepthCrops:
    """Random crops with depth in metres, NaN where there is none; sky is none, for it has no depth.

    Attributes:
        flip: mirror half of the samples.
        settings: of the augmentation.
    """

    size: tuple[int, int]
    flip: bool
    settings: MetricDepthSection
    columns: ClassVar[tuple[str, ...]] = TRAINING_COLUMNS
    target_dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    draws: ClassVar[int] = 10

    def __call__(
        self,
        row: dict[str, Any],
        draws: NDArray[np.float64],
        image_out: NDArray[np.uint8],
        target_out: NDArray[Any],
    ) -> None:
        """See `crops.Crops`; the numbers: top, left, flip, angle, whether coloured, colours."""
        if row["scale"] is None:
            raise ValueError(f"sample {row['sample_id']}: its depth has no metric scale")
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
    """Rows and columns of an image that training uses.

    Raises:
        ValueError: if the image lies outside of the border.
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
    """Depth of stored inverse depth, NaN where it is unknown or infinite."""
    inverse = inverse_depth.astype(np.float32) * np.float32(scale)
    depth = np.full(inverse.shape, np.nan, np.float32)
    return np.divide(1, inverse, out=depth, where=inverse > 0)


def turned_crop(
    image: NDArray[np.uint8],
    inverse_depth: NDArray[np.float16],
    draws: NDArray[np.float64],
    angle: float,
    mirror: bool,
    image_out: NDArray[np.uint8],
    inverse_depth_out: NDArray[np.float16],
) -> None:
    """A crop of the image turned about its centre; what comes from outside is black and invalid.

    Args:
        image: (H, W, 3); interpolated bilinearly.
        inverse_depth: (H, W); no value is made up, the nearest is taken.
        draws: two numbers in [0, 1): vertical and horizontal position.
        angle: in degrees, counterclockwise.
        image_out, inverse_depth_out: (h, w, 3) and (h, w), contiguous; written to.
    """
    (there, wide), (height, width) = inverse_depth.shape, inverse_depth_out.shape
    top = int(draws[_TOP] * (max(0, there - height) + 1))
    left = int(draws[_LEFT] * (max(0, wide - width) + 1))
    turn = cv2.invertAffineTransform(cv2.getRotationMatrix2D(((wide - 1) / 2, (there - 1) / 2), angle, 1.0))
    place = np.array(
        [[-1.0 if mirror else 1.0, 0, left + (width - 1 if mirror else 0)], [0, 1, top], [0, 0, 1]]
    )
    back = turn @ place
    flags = cv2.WARP_INVERSE_MAP
    cv2.warpAffine(image, back, (width, height), dst=image_out, flags=flags | cv2.INTER_LINEAR)
    # OpenCV moves float16 as the 16-bit integers that it is stored as.
    cv2.warpAffine(
        inverse_depth.view(np.int16), back, (width, height), dst=inverse_depth_out.view(np.int16),
        flags=flags | cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=_INVALID,
    )  # fmt: skip


def change_colours(
    image: NDArray[np.uint8], settings: MetricDepthSection, draws: NDArray[np.float64]
) -> None:
    """Change gamma, brightness and the channels' strengths of (h, w, 3) in place.

    Args:
        draws: five numbers in [0, 1): gamma, brightness, red, green, blue.
    """
    gamma, brightness = _between(settings.gamma, draws[0]), _between(settings.brightness, draws[1])
    factors = brightness * _between(settings.colour, draws[2:5])
    curve = (np.arange(256)[:, None] / 255) ** gamma * factors
    table = np.rint(255 * np.clip(curve, 0, 1)).astype(np.uint8)
    cv2.LUT(image, table[None], dst=image)


def _between(limits: tuple[float, float], draw: Any) -> Any:
    return limits[0] + (limits[1] - limits[0]) * draw
