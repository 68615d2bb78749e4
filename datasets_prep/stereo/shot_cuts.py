"""Shot cuts of a video, and the one-second clips that are taken from its shots.

The measure is the one of FFmpeg's scene filter, which the authors of the Movies dataset used at a threshold
of 0.1: with d(t) the mean absolute difference between frames t - 1 and t as a share of the value range, the
score is min(d(t), |d(t) - d(t - 1)|). A cut is one jump of d; steady motion has a large d and no jump. Here d
is taken of the luma, shrunk to a thumbnail, which is what makes it cheap and indifferent to film grain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

THUMBNAIL_WIDTH = 128

_MARGIN = 2
"""Frames left out at the start of a shot: a cross-fade's rest, or a cut that was seen a frame early."""

_MAX_STRIDE_SECONDS = 4
"""A long shot gives a clip this often: neighbouring seconds of a shot teach the same."""


def find_cuts(thumbnails: Iterable[tuple[int, NDArray[np.uint8]]], threshold: float) -> list[int]:
    """Where shots begin and the last one ends.

    Args:
        thumbnails: frame number and (h, w) uint8 luma of consecutive frames.
        threshold: a score above it is a cut.

    Returns:
        Rising frame numbers, at least two if there is a frame: shot i is from entry i to before entry i + 1.
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
        start, stop: the shot, a half-open range of frame numbers.
        rate: frames a second of the video, rounded.
        per_second: how many of them a clip takes, evenly spaced.

    Yields:
        the frame numbers of each clip; none of a shot that is too short.
    """
    step = max(1, round(rate / per_second))
    while stop - start >= _MARGIN + rate:
        first = start + _MARGIN
        yield list(range(first, first + rate, step))[:per_second]
        start += _MAX_STRIDE_SECONDS * rate
