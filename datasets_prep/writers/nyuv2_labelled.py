"""Generated files in the layout of NYU Depth v2's labelled part; facts are in `sources.nyuv2_labelled`.

All photos are in one file, so scenes lie in parts of their own until the lists are written, which come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_prep.formats.matlab import encode_matlab_arrays
from datasets_prep.render.scenes import Scene, render_scene, render_views
from datasets_prep.writers.base import VIEWS, Layout, write_file

KINDS = ("room",)
_FILE_NAME = "nyu_depth_v2_labeled.mat"
_TEST_EVERY = 3
_USER_BLOCK = b"MATLAB 7.3 MAT-file".ljust(512)


def raw_depth(scene: Scene) -> NDArray[np.float32]:
    """(H, W) float32 metres, 0 where the Kinect sees nothing: beyond 10 m and in a margin."""
    depth = np.where(scene.depth < 10, scene.depth, 0).astype(np.float32)
    margin = max(1, depth.shape[0] // 12)
    depth[:margin] = depth[:, :margin] = depth[:, -margin:] = 0
    return depth


def _part(root: Path, index: int) -> Path:
    return root / f"part_{index:04d}.npz"


def _write_scene(root: Path, index: int, seed: int, height: int, width: int) -> None:
    scenes = render_views(seed, VIEWS, height, width, KINDS)
    root.mkdir(parents=True, exist_ok=True)
    images = np.stack([scene.image for scene in scenes])
    np.savez(_part(root, index), images=images, depths=np.stack([raw_depth(scene) for scene in scenes]))


def _write_lists(root: Path, seeds: Sequence[int]) -> None:
    """The file of all photos, made of the scenes' parts, and `splits.mat`."""
    parts = [np.load(_part(root, index)) for index in range(len(seeds))]
    images = np.concatenate([part["images"] for part in parts])
    _write_photos(root, images, np.concatenate([part["depths"] for part in parts]))
    _write_splits(root, len(images))
    for index in range(len(seeds)):
        _part(root, index).unlink()


def _write_photos(root: Path, images: NDArray[np.uint8], depths: NDArray[np.float32]) -> None:
    """HDF5 with MATLAB's header before it, and with its order of axes."""
    import h5py  # type: ignore[import-untyped, unused-ignore]

    arrays: dict[str, NDArray[Any]] = {
        "images": images.transpose(0, 3, 2, 1),
        "rawDepths": depths.transpose(0, 2, 1),
        "depths": np.maximum(depths, 0.7).transpose(0, 2, 1),
    }
    with h5py.File(root / _FILE_NAME, "w", userblock_size=len(_USER_BLOCK)) as file:
        for name, values in arrays.items():
            file.create_dataset(
                name, data=values, chunks=(1, *values.shape[1:]), compression="gzip", track_times=False
            )
    with (root / _FILE_NAME).open("r+b") as file:
        file.write(_USER_BLOCK)


def _write_splits(root: Path, photos: int) -> None:
    numbers = np.arange(1, photos + 1, dtype=np.float64)[:, None]
    test = np.arange(photos) % _TEST_EVERY == _TEST_EVERY - 1
    arrays = {"trainNdxs": numbers[~test], "testNdxs": numbers[test]}
    write_file(root / "splits.mat", encode_matlab_arrays(arrays))


def _write_traps(root: Path, seed: int, height: int, width: int) -> dict[str, str]:
    """More photos at the end of the file: one without depth, and one that is in no split."""
    import h5py

    scene = render_scene(seed, height, width, KINDS)
    with h5py.File(root / _FILE_NAME, "r") as file:
        images, depths = file["images"][()].transpose(0, 3, 2, 1), file["rawDepths"][()].transpose(0, 2, 1)
    empty = np.zeros((1, height, width), np.float32)
    more = np.stack([scene.image, scene.image])
    _write_photos(root, np.concatenate([images, more]), np.concatenate([depths, empty, empty + 1]))
    _write_splits(root, len(images) + 1)
    return {f"{len(images) + 1:04d}": "empty depth", f"{len(images) + 2:04d}": "missing partner"}


LAYOUT = Layout(_write_scene, _write_traps, _write_lists)
