"""Near-duplicates among pictures by a perceptual hash, the same for any number of workers.

The hash (dHash) says of 8 × 8 places of a tiny grey picture whether it gets brighter to the right: 64 bits,
which size, compression and brightness hardly change.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

BITS = 64


def perceptual_hash(image: NDArray[np.uint8]) -> int:
    """The dHash of `image`, (H, W, 3) uint8 RGB: `BITS` bits, row by row, the first one the highest."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(int)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def near_duplicates(hashes: Sequence[int | None], distance: int) -> dict[int, int]:
    """Which of the pictures with these `hashes` (None: no picture) are near-duplicates of an earlier one.

    A picture is kept if it differs from all kept before it in more than `distance` bits; else it belongs to
    the first of those that are as near. Cut into `distance` + 1 bands, two hashes that differ in at most
    `distance` bits have a band in common, so only those that share one are compared.

    Returns:
        position of each near-duplicate → position of the picture that is kept instead.
    """
    bands: list[dict[int, list[int]]] = [{} for _ in range(distance + 1)]
    found = {}
    for position, value in enumerate(hashes):
        if value is None:
            continue
        same = [band.setdefault(key, []) for band, key in zip(bands, _keys(value, distance + 1), strict=True)]
        near = [
            other for kept in same for other in kept if (value ^ (hashes[other] or 0)).bit_count() <= distance
        ]
        if near:
            found[position] = min(near)
            continue
        for kept in same:
            kept.append(position)
    return found


def _keys(value: int, count: int) -> Iterator[int]:
    """The bits of a hash in `count` bands."""
    edges = [BITS * number // count for number in range(count + 1)]
    for start, stop in itertools.pairwise(edges):
        yield value >> start & (1 << stop - start) - 1
