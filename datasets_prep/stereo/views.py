"""The two views of one stereo frame: unpacking the arrangements of films and web videos."""

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets_prep.settings import Packing

Views = tuple[NDArray[np.uint8], NDArray[np.uint8]]

_FULL_HD = (1080, 1920)
_WIDESCREEN = (800, 1880)


def split_views(frame: NDArray[np.uint8], packing: Packing, swapped: bool = False) -> Views:
    """Unpack a frame; squeezed views are stretched back.

    Args:
        frame: (H, W, 3) uint8. An odd last column (or row) is dropped.
        packing: arrangement of the views.
        swapped: whether the right eye's view comes first.

    Returns:
        Left and right view, (h, w, 3) uint8 each, in memory of their own.
    """
    height, width = frame.shape[:2]
    if packing.endswith("side_by_side"):
        half = width // 2
        first, second = frame[:, :half], frame[:, half : 2 * half]
        size = (2 * half, height)
    else:
        half = height // 2
        first, second = frame[:half], frame[half : 2 * half]
        size = (width, 2 * half)
    if packing.startswith("half"):
        stretched = (cv2.resize(view, size, interpolation=cv2.INTER_LINEAR) for view in (first, second))
        first, second = (np.asarray(view, np.uint8) for view in stretched)
    else:
        first, second = first.copy(), second.copy()
    return (second, first) if swapped else (first, second)


def crop_widescreen(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The central 1880×800 pixels (2.35:1) of a 1080p `view`; views of other sizes are returned unchanged.

    Films in 16:9 have black bars above and below, and at the sides where a floating window was set; the
    authors of the Movies dataset cut all films to this size.
    """
    if view.shape[:2] != _FULL_HD:
        return view
    top, left = ((full - kept) // 2 for full, kept in zip(_FULL_HD, _WIDESCREEN, strict=True))
    return np.ascontiguousarray(view[top : top + _WIDESCREEN[0], left : left + _WIDESCREEN[1]])
