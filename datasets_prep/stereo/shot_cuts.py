"""Shot cuts of a video, and the one-second clips that are taken from its shots.

The score is that of FFmpeg's scene filter, which the authors of the Movies dataset used at a threshold of
0.1: with d(t) the mean absolute difference between frames t - 1 and t as a share of the value range, it is
min(d(t), |d(t) - d(t - 1)|). A cut is a single jump of d; steady motion has a large d and no jump. For d =
0.02 0.02 0.40 0.03 the scores are 0.00 0.38 0.03: one cut, and none on the way back. Here d is computed on a
thumbnail of the luma, which makes it cheap and insensitive to film grain.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

THUMBNAIL_WIDTH = 128

_MARGIN = 2  # frames skipped at the start of a shot: the end of a cross-fade, or a cut detected a frame early
_MAX_STRIDE_SECONDS = 4
"""Seconds between clips of a long shot: neighbouring seconds are nearly the same pictures."""


def find_cuts(thumbnails: Iterable[tuple[int, NDArray[np.uint8]]], threshold: float) -> list[int]:
    """Frame numbers at which shots begin, and the end of the last shot.

    Args:
        thumbnails: frame number and (h, w) uint8 luma of consecutive frames.
        threshold: a score above it is a cut.

    Returns:
        Ascending frame numbers; shot i is the half-open range from entry i to entry i + 1.
    """
    bounds: list[int] = []
    previous: NDArray[np.int16] | None = None
    number, last_change = -1, 0.0
    for number, thumbnail in thumbnails:
        luma = thumbnail.astype(np.int16)
        if previous is None:
            bounds.append(number)
        else:
            change = float(np.abs(luma - previous).mean()) / 256
            if min(change, abs(change - last_change)) > threshold:
                bounds.append(number)
            last_change = change
        previous = luma
    return [*bounds, number + 1] if bounds else []


def clips_of_shot(start: int, stop: int, rate: int, per_second: int) -> Iterator[list[int]]:
    """Clips of one second from a shot, one every four seconds.

    Args:
        start: number of the shot's first frame.
        stop: number of the frame after its last.
        rate: frames per second of the video, rounded.
        per_second: frames per clip, evenly spaced.

    Yields:
        The frame numbers of each clip; nothing if the shot is too short.
    """
    step = max(1, round(rate / per_second))
    while stop - start >= _MARGIN + rate:
        first = start + _MARGIN
        yield list(range(first, first + rate, step))[:per_second]
        start += _MAX_STRIDE_SECONDS * rate
