"""Generated files in the layouts of TUM RGB-D; the formats' facts are in `sources.tum`.

Every second scene is written as the package of chosen frames, the others as sequences.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.hdf5 import encode_hdf5_arrays
from datasets_prep.formats.pictures import encode_png
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.writers.base import VIEWS, Layout, with_alpha, write_file

KINDS = ("room",)
_START_MICROSECONDS = 1_341_846_313_000_000
_FRAME_MICROSECONDS = 33_333
_DEPTH_LATER_MICROSECONDS = 4_321


def tum_map(scene: Scene) -> NDArray[np.uint16]:
    """(H, W) uint16 metres times 5,000, 0 beyond 13 m."""
    return np.round(5000 * np.where(scene.depth < 13, scene.depth, 0)).astype(np.uint16)


def _time(microseconds: int) -> str:
    return f"{microseconds // 10**6}.{microseconds % 10**6:06d}"


def _write_frame(folder: Path, number: int, image: bytes, depth: bytes | None) -> str:
    """Write one frame; returns its time."""
    now = _START_MICROSECONDS + number * _FRAME_MICROSECONDS
    write_file(folder / "rgb" / f"{_time(now)}.png", image)
    if depth is not None:
        write_file(folder / "depth" / f"{_time(now + _DEPTH_LATER_MICROSECONDS)}.png", depth)
    return _time(now)


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    folder = root / f"rgbd_dataset_freiburg3_rendered_{index}"
    if index % 2:
        _write_chosen(root / "tum_hdf5", index, render_views(seed, VIEWS, height, width, KINDS))
        return
    for number, scene in enumerate(render_views(seed, VIEWS, height, width, KINDS)):
        _write_frame(folder, number, encode_png(scene.image), encode_png(tum_map(scene)))


def _write_chosen(folder: Path, index: int, scenes: list[Scene]) -> None:
    """Frames of the package: images as floats, depth in metres, both in one file."""
    for number, scene in enumerate(scenes):
        arrays = {
            "gt/img_1": (scene.image / 255).astype(np.float32),
            "gt/gt_depth": np.where(scene.depth < 13, scene.depth, 0).astype(np.float32),
        }
        write_file(folder / f"rendered_{index}_{number:04d}.h5", encode_hdf5_arrays(arrays))


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    scene = render_scene(seed, height, width, KINDS)
    image, stored = encode_png(scene.image), tum_map(scene)
    depth = encode_png(stored)
    files = {
        "missing partner": (image, None),
        "truncated image": (image[: len(image) // 2], depth),
        "truncated depth": (image, depth[: len(depth) // 2]),
        "mismatched size": (image, encode_png(stored[: height // 2])),
        "empty depth": (image, encode_png(np.zeros_like(stored))),
        "RGBA image": (encode_png(with_alpha(scene.image)), depth),
    }
    sequence, traps = "rgbd_dataset_freiburg1_traps", {}
    for number, (what, (picture, png)) in enumerate(files.items()):
        time = _write_frame(root / sequence, number, picture, png)
        traps[f"{sequence}/{time}"] = what
    return traps


LAYOUT = Layout(_write_scene, _write_traps)
