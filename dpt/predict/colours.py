"""Inverse depth and label maps as pictures: colour maps, a colour per class, overlays."""

import cv2
import numpy as np
from numpy.typing import NDArray

COLOURS = 256
UNLABELLED = COLOURS - 1
"""Value of pixels without a label (void). They are black, which no class is: class k has colour k + 1."""

_OF_OPENCV = ("cividis", "inferno", "magma", "plasma", "turbo", "viridis")
"""Colour maps of Matplotlib that OpenCV has too, to one level of 255."""


def voc_colour_map() -> NDArray[np.uint8]:
    """The colour map of Pascal VOC, (256, 3) uint8 RGB; colour 0 is black.

    The bits of the index go to red, green and blue in turn, the lowest three to the highest bit of each, so
    that neighbouring indices differ most: 1 = 0b001 → (128, 0, 0), 6 = 0b110 → (0, 128, 128), and
    8 = 0b001000 → (64, 0, 0).
    """
    index = np.arange(COLOURS)
    colours = np.zeros((COLOURS, 3), np.uint8)
    for bit in range(8):
        channel, place = bit % 3, 7 - bit // 3
        colours[:, channel] |= ((index >> bit & 1) << place).astype(np.uint8)
    return colours


def class_colours() -> NDArray[np.uint8]:
    """Class palette by class index, (256, 3) uint8 RGB; entry 255 (void) is black."""
    return np.roll(voc_colour_map(), -1, axis=0)


def paint_classes(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) uint8 classes `labels`, 255 for void -> (H, W, 3) uint8 RGB."""
    painted: NDArray[np.uint8] = class_colours()[labels]
    return painted


def overlay(image: NDArray[np.uint8], labels: NDArray[np.uint8], opacity: float = 0.5) -> NDArray[np.uint8]:
    """Blend class colours over an image; pixels without a label stay as they are.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, 255 for void.
        opacity: of the colours, in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if the sizes differ.
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(f"image of {image.shape[:2]} and labels of {labels.shape} pixels")
    shares = np.where(labels == UNLABELLED, 0.0, opacity)[..., None]
    mixed = (1 - shares) * image + shares * paint_classes(labels)
    return np.round(mixed).astype(np.uint8)


def display_range(inverse_depth: np.ndarray) -> tuple[float, float]:
    """The 2nd and 98th percentile of the finite pixels of `inverse_depth` (H, W); (0, 0) without any."""
    finite = inverse_depth[np.isfinite(inverse_depth)]
    if not finite.size:
        return 0.0, 0.0
    low, high = np.percentile(finite, (2, 98))
    return float(low), float(high)


def colour_table(name: str) -> NDArray[np.uint8]:
    """The colours of Matplotlib's colour map `name`, (256, 3) uint8 RGB; those of OpenCV need no Matplotlib.

    Raises:
        ValueError: if there is none.
        ModuleNotFoundError: without Matplotlib.
    """
    index = np.arange(COLOURS, dtype=np.uint8)
    if name in _OF_OPENCV:
        painted = cv2.applyColorMap(index[:, None], getattr(cv2, f"COLORMAP_{name.upper()}"))
        return np.asarray(painted[:, 0, ::-1], np.uint8)
    import matplotlib

    if name not in matplotlib.colormaps:
        raise ValueError(f"Matplotlib has no {name!r}; some are: {', '.join(_OF_OPENCV)}")
    return np.asarray(matplotlib.colormaps[name]((index + 0.5) / COLOURS, bytes=True)[:, :3])


def colourise(
    inverse_depth: np.ndarray, colour_map: str = "inferno", limits: tuple[float, float] | None = None
) -> np.ndarray:
    """Paint (H, W) inverse depth as (H, W, 3) uint8 RGB, bright is near; NaN and infinity are black.

    Args:
        inverse_depth: (H, W) floating point.
        colour_map: see `colour_table`.
        limits: values of the first and the last colour; `display_range` by default.
    """
    low, high = limits or display_range(inverse_depth)
    finite = np.isfinite(inverse_depth)
    values = (np.where(finite, inverse_depth, low) - low) / max(high - low, float(np.finfo(np.float32).tiny))
    index = (np.clip(values, 0, 1) * COLOURS).astype(int).clip(max=COLOURS - 1)
    return colour_table(colour_map)[index] * finite[..., None]
