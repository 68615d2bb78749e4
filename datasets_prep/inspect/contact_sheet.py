"""Contact sheets: pictures of equal height in rows, with a line of text above each row."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_GAP = 6
_TEXT_HEIGHT = 22
_BACKGROUND = 225
_INK = (40, 40, 40)

Picture = NDArray[np.uint8]


def contact_sheet(rows: Sequence[Sequence[Picture]], titles: Sequence[str], height: int = 192) -> Picture:
    """Lay out `rows` of (H, W, 3) uint8 RGB pictures of any size, scaled to `height` pixels, in one picture.

    `titles` has a line of ASCII text for each row.
    """
    strips = [
        _titled(np.concatenate([_scaled(picture, height) for picture in row], axis=1), title)
        for row, title in zip(rows, titles, strict=True)
    ]
    width = max(strip.shape[1] for strip in strips)
    padded = [
        np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=_BACKGROUND) for s in strips
    ]
    return np.concatenate(padded, axis=0)


def _scaled(picture: Picture, height: int) -> Picture:
    """Scaled to `height`, with a gap below and to the left."""
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    method = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_NEAREST
    resized = np.asarray(cv2.resize(picture, (width, height), interpolation=method), np.uint8)
    return np.pad(resized, ((0, _GAP), (_GAP, 0), (0, 0)), constant_values=_BACKGROUND)


def _titled(strip: Picture, title: str) -> Picture:
    bar = np.full((_TEXT_HEIGHT, strip.shape[1], 3), _BACKGROUND, np.uint8)
    cv2.putText(bar, title, (_GAP, _TEXT_HEIGHT - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
    return np.concatenate([bar, strip], axis=0)
