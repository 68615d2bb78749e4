"""What every generated layout offers, and the few things that their writers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.render.scenes import Scene

VIEWS = 5
"""Views of each scene in the datasets that have several: a BlendedMVS project, a TartanAir trajectory."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one dataset is laid out.

    Attributes:
        write_scene: writes all files of one scene; called with root, index, seed, height, width. The index
            decides names, the seed what there is to see.
        write_traps: adds samples with the defects of the real set; called with root, seed, height, width.
            Returns sample id → defect.
        write_lists: writes the list files of the official split; called with root and all scenes' seeds.
    """

    write_scene: Callable[[Path, int, int, int, int], None]
    write_traps: Callable[[Path, int, int, int], dict[str, str]]
    write_lists: Callable[[Path, Sequence[int]], None] | None = None


def write_file(path: Path, data: bytes) -> None:
    """Write a file, making its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) → (H, W, 1), the mean of the channels."""
    return image.mean(axis=2, keepdims=True).astype(np.uint8)


def with_alpha(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) → (H, W, 4), opaque."""
    return np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])


def inverse_depth(scene: Scene) -> NDArray[np.float32]:
    """Inverse depth divided by its 99th percentile and cut at 1: sky is 0, the nearest things are 1."""
    inverse = (1 / scene.depth).astype(np.float32)
    return np.minimum(inverse / np.float32(np.quantile(inverse, 0.99)), np.float32(1))
