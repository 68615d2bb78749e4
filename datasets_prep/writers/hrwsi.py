"""Generated files in the layout of HRWSI; the format's facts are in `sources.hrwsi`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.pictures import encode_jpeg, encode_png
from datasets_prep.render.scenes import Scene, render_scene
from datasets_prep.writers.base import Layout, grey, inverse_depth, write_file

_VAL_EVERY = 8
KINDS = ("countryside", "street", "things on a floor")
_BASELINE_METRES = 0.1


def hrwsi_map(scene: Scene) -> NDArray[np.uint8]:
    """(H, W) uint8 disparity as HRWSI stores it: 255 nearest, 0 farthest or sky."""
    inverse = inverse_depth(scene)
    low = inverse.min()
    return np.round(255 * (inverse - low) / (1 - low)).astype(np.uint8)


def hrwsi_mask(scene: Scene) -> NDArray[np.uint8]:
    """(H, W) uint8: 0 where a second camera to the right would not see the point, else 255."""
    disparity = scene.intrinsics[0, 0] * _BASELINE_METRES / scene.depth
    seen_at = np.arange(scene.depth.shape[1]) - disparity
    # A point is hidden if something to its right in the left view is to its left in the right view.
    leftmost = np.minimum.accumulate(seen_at[:, ::-1], axis=1)[:, ::-1]
    visible = (seen_at <= leftmost + 0.5) & (seen_at >= 0)
    return np.where(visible, 255, 0).astype(np.uint8)


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    split = "val" if index % _VAL_EVERY == _VAL_EVERY - 1 else "train"
    scene = render_scene(seed, height, width, KINDS)
    write_file(root / split / "imgs" / f"{index:06d}.jpg", encode_jpeg(scene.image))
    write_file(root / split / "gts" / f"{index:06d}.png", encode_png(hrwsi_map(scene)))
    write_file(root / split / "valid_masks" / f"{index:06d}.png", encode_png(hrwsi_mask(scene)))


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width, KINDS)
    image, stored, mask = (
        encode_jpeg(scene.image),
        encode_png(hrwsi_map(scene)),
        encode_png(hrwsi_mask(scene)),
    )
    files = {
        "missing partner": (image, stored, None),
        "truncated image": (image[: len(image) // 2], stored, mask),
        "truncated depth": (image, stored[: len(stored) // 2], mask),
        "mismatched size": (encode_jpeg(scene.image[: height // 2]), stored, mask),
        "empty depth": (image, stored, encode_png(np.zeros((height, width), np.uint8))),
        "grey image": (encode_jpeg(grey(scene.image)), stored, mask),
    }
    traps = {}
    for what, contents in files.items():
        stem = what.replace(" ", "_")
        for place, data in zip(("imgs/{}.jpg", "gts/{}.png", "valid_masks/{}.png"), contents, strict=True):
            if data is not None:
                write_file(root / "train" / place.format(stem), data)
        traps[f"train/{stem}"] = what
    return traps


LAYOUT = Layout(_write_scene, _write_traps)
