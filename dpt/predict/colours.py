"""Label maps as pictures: a colour for every class, and classes laid over the image."""

import matplotlib
import numpy as np
from numpy.typing import NDArray

COLOURS = 256
UNLABELLED = (0, 0, 0)
"""Colour of pixels without a label. No class has it: class k has colour k + 1 of the map."""


def voc_colour_map() -> NDArray[np.uint8]:
    """The colour map of Pascal VOC, (256, 3) uint8 RGB; colour 0 is black.

    The bits of the index go to red, green and blue in turn, the lowest to the highest bit of each.
    """
    index = np.arange(COLOURS)
    colours = np.zeros((COLOURS, 3), np.uint8)
    for bit in range(8):
        channel, place = bit % 3, 7 - bit // 3
        colours[:, channel] |= ((index >> bit & 1) << place).astype(np.uint8)
    return colours


def class_colours() -> NDArray[np.uint8]:
    """The colour of every class, and of 255 (no label) black: (256, 3) uint8 RGB."""
    return np.roll(voc_colour_map(), -1, axis=0)


def paint_classes(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) uint8 classes, 255 for no label -> (H, W, 3) uint8 RGB."""
    painted: NDArray[np.uint8] = class_colours()[labels]
    return painted


def overlay(image: NDArray[np.uint8], labels: NDArray[np.uint8], opacity: float = 0.5) -> NDArray[np.uint8]:
    """Lay the colours of classes over their image; pixels without a label stay as they are.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, 255 for no label.
        opacity: of the colours, in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if the sizes differ.
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(f"image of {image.shape[:2]} and labels of {labels.shape} pixels")
    shares = np.where(labels == COLOURS - 1, 0.0, opacity)[..., None]
    mixed = (1 - shares) * image + shares * paint_classes(labels)
    return np.round(mixed).astype(np.uint8)


def display_range(inverse_depth: np.ndarray) -> tuple[float, float]:
    """The 2nd and the 98th percentile of the finite pixels; (0, 0) without any."""
    finite = inverse_depth[np.isfinite(inverse_depth)]
    if not finite.size:
        return 0.0, 0.0
    low, high = np.percentile(finite, (2, 98))
    return float(low), float(high)


def colourise(
    inverse_depth: np.ndarray, colour_map: str = "inferno", limits: tuple[float, float] | None = None
) -> np.ndarray:
    """Paint (H, W) inverse depth as (H, W, 3) uint8 RGB, bright is near; not finite pixels are black.

    Args:
        inverse_depth: (H, W) floating point.
        colour_map: a name of Matplotlib's.
        limits: values that get the first and the last colour; the `display_range` by default.
    """
    low, high = limits or display_range(inverse_depth)
    finite = np.isfinite(inverse_depth)
    values = (np.where(finite, inverse_depth, low) - low) / max(high - low, float(np.finfo(np.float32).tiny))
    colours = matplotlib.colormaps[colour_map](np.clip(values, 0, 1), bytes=True)[..., :3]
    return colours * finite[..., None]
